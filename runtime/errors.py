"""What can go wrong while running.

SostenutoError
├── ModelNotFound       no model where it was looked for
├── ModelUnsupported    a model that we would run wrongly, or not at all
├── BadSampling         a sampling parameter out of its range
├── Refused             a turn that can never run, with the reason
├── TooLate             an answer that took longer than it may
├── EngineFailed        a step of the engine failed; its turns are lost
├── HostClosed          the host was closed, before or during a turn
├── RepairsSpent        too many tool calls in a row were rejected
├── BadMessage          a message that cannot be put before the model
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


class TooLate(SostenutoError, TimeoutError):
    """An answer that took longer than it may."""


class EngineFailed(SostenutoError):
    """A step of the engine failed."""


class HostClosed(SostenutoError):
    """The host was closed, before or during a turn."""


class RepairsSpent(SostenutoError):
    """Too many tool calls in a row were rejected."""


class BadMessage(SostenutoError, ValueError):
    """A message that cannot be put before the model."""


class BrokenJournal(SostenutoError, ValueError):
    """A journal that cannot be read."""
