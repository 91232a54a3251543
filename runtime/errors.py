"""What can go wrong while running.

SostenutoError
├── ModelNotFound       no model where it was looked for
├── ModelUnsupported    a model that we would run wrongly, or not at all
├── BadSampling         a sampling parameter out of its range
├── Refused             a turn that can never run, with the reason
│   └── ContextLost     a turn over a thinned context of which something is gone
├── Limited             a tenant that asks too often
├── Blocked             a question or an answer that a guard does not let pass
├── TooLate             an answer that took longer than it may
├── EngineFailed        a step of the engine failed; its turns are lost
├── Unable              something that this engine cannot do
├── MissingPackage      a package of an extra that is not installed
├── Busy                something that cannot be done while turns run
├── UnknownMark         no mark of this name
├── UnknownCheckpoint   no checkpoint of this id in its thread
├── ForeignMark         a mark of another model or tenant
├── ForkAlive           a rollback behind a place from which forks live
├── Lossy               something lossy where exactness was asked for or is needed
├── SessionClosed       the session was closed
├── GrammarStuck        a grammar that allows no token; its turn is lost, others go on
├── NotFinite           logits that are no numbers; their turn is lost, others go on
├── HostClosed          the host was closed, before or during a turn
├── RepairsSpent        too many tool calls in a row were rejected
├── BadMessage          a message that cannot be put before the model
├── BadRequest          a request to the server whose fields are not as they must be
├── BadRollout          a rollout whose tokens and numbers do not belong together
├── TrainerUnsupported  a trainer whose weights or settings a rollout cannot follow
├── BadSaver            a checkpointer that is none
├── SaverUnable         a call that a checkpointer does not have
├── BadEdit             an edit of saved threads that cannot be made
├── BrokenAudit         an audit log that is not whole, or cannot be written
└── BrokenJournal       a journal that cannot be read
"""

from __future__ import annotations


class SostenutoError(Exception):
    """Any fault while running; the message says what was found, what was expected and what to do."""


class ModelNotFound(SostenutoError, FileNotFoundError):
    """No model where it was looked for."""


class ModelUnsupported(SostenutoError):
    """A model that we would run wrongly, or not at all."""


class BadSampling(SostenutoError, ValueError):
    """A sampling parameter out of its range."""


class Refused(SostenutoError):
    """A turn that can never run."""


class ContextLost(Refused):
    """A turn over a thinned context of which something is gone; what is left does not say what that was."""


class Limited(SostenutoError):
    """A tenant that asks too often; `retry_after` are the seconds after which it may ask again."""

    def __init__(self, tenant: str, retry_after: float) -> None:
        super().__init__(f"the tenant {tenant!r} asks too often: ask again after {max(retry_after, 0.1):.1f} s")
        self.retry_after = retry_after


class Blocked(SostenutoError):
    """A question or an answer that a guard does not let pass."""


class TooLate(SostenutoError, TimeoutError):
    """An answer that took longer than it may."""


class EngineFailed(SostenutoError):
    """A step of the engine failed."""

    @classmethod
    def of(cls, fault: BaseException) -> EngineFailed:
        """The fault itself if it says so already, else one that names it as its cause."""
        if isinstance(fault, EngineFailed):
            return fault
        error = cls(f"the engine failed in a step ({type(fault).__name__}: {fault}); this turn is lost")
        error.__cause__ = fault
        return error


class HostClosed(SostenutoError):
    """The host was closed, before or during a turn."""


class RepairsSpent(SostenutoError):
    """Too many tool calls in a row were rejected."""


class BadMessage(SostenutoError, ValueError):
    """A message that cannot be put before the model."""


class BadRequest(SostenutoError, ValueError):
    """A request to the server whose `field` is not as it must be; an empty one is the request as a whole."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        shown = repr(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field or 'the body'}: found {shown}; expected {expected}")
        self.field = field


class BrokenJournal(SostenutoError, ValueError):
    """A journal that cannot be read."""


class BrokenAudit(SostenutoError):
    """An audit log that is not whole, or cannot be written."""


class BadRollout(SostenutoError, ValueError):
    """A rollout whose tokens and numbers do not belong together."""


class TrainerUnsupported(SostenutoError):
    """A trainer whose weights or settings a rollout cannot follow."""


class Unable(SostenutoError):
    """Something that this engine cannot do."""


class MissingPackage(SostenutoError, ImportError):
    """A package of an extra that is not installed."""


class Busy(SostenutoError):
    """Something that cannot be done while turns run."""

    @classmethod
    def with_turns(cls, count: int) -> Busy:
        """Turns are on their way, and nobody has said what becomes of them."""
        return cls(
            f"{count} turns are on their way: let them end, or say what becomes of them with running='keep' (they go "
            "on under the new weights) or running='abort'"
        )


class UnknownMark(SostenutoError, LookupError):
    """No mark of this name."""


class ForeignMark(SostenutoError, ValueError):
    """A mark of another model or tenant."""


class ForkAlive(SostenutoError):
    """A rollback behind a place from which forks live."""


class Lossy(SostenutoError):
    """Something lossy where exactness was asked for or is needed."""


class BadSaver(SostenutoError, TypeError):
    """A checkpointer that is none."""


class SaverUnable(SostenutoError, NotImplementedError):
    """A call that a checkpointer does not have."""


class BadEdit(SostenutoError, ValueError):
    """An edit of saved threads that cannot be made."""


class SessionClosed(SostenutoError):
    """The session was closed."""


class UnknownCheckpoint(SostenutoError, LookupError):
    """No checkpoint of this id in its thread."""


class GrammarStuck(SostenutoError, ValueError):
    """A grammar that allows no token."""


class NotFinite(SostenutoError, ArithmeticError):
    """Logits that are no numbers."""
