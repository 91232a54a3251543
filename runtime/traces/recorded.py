"""Our own journals as workloads: what programs asked and were told, whatever the schedule was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...scheduler import Arrived, Cancelled, Finished, Paused, Stepped
from ...scheduler.simulator import Call, Session, Workload, common
from ..journal import decode
from .reading import objects


@dataclass(slots=True)
class _Turn:
    prompt: tuple[int, ...]
    at: float
    said: list[int] = field(default_factory=list)
    ended: float | None = None
    tools: tuple[str, ...] = ()


def journal(path: Path) -> Workload:
    """Each line of conversation of each program is a session, with the pauses that it made, token by token.

    What was cancelled or refused is left out.
    """
    lines: dict[str, list[_Turn]] = {}
    turns: dict[str, _Turn] = {}
    for number, (row, found) in enumerate(objects(path)):
        if number == 0:
            continue
        if not isinstance(found.get("event"), dict):
            raise row.wrong("event", "an event")
        try:
            event, now = decode(found["event"]), row.seconds("at")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise row.fault(f"no event can be read from it ({error})") from error
        match event:
            case Arrived(turn=turn, program=program, branch=branch, tokens=tokens):
                name = program if branch == "main" else f"{program} {branch}"
                turns[turn] = _Turn(tokens, now)
                lines.setdefault(name, []).append(turns[turn])
            case Stepped(progress=progress):
                for one in progress:
                    if one.turn in turns:
                        turns[one.turn].said += one.said
            case Paused(turn=turn, tools=tools) if turn in turns:
                turns[turn].ended, turns[turn].tools = now, tools
            case Finished(turn=turn) | Cancelled(turn=turn) if turn in turns:
                turns[turn].ended = now if isinstance(event, Finished) else None
    sessions = [_session(name, [turn for turn in found if turn.ended and turn.said]) for name, found in lines.items()]
    kept = sorted((session for session in sessions if session.calls), key=lambda session: session.at)
    return Workload("journal", kept, 1, ("what was cancelled or refused is left out",), timed=True)


def _session(name: str, turns: list[_Turn]) -> Session:
    calls = []
    context: list[int] = []
    for turn, after in zip(turns, [*turns[1:], None], strict=True):
        keep = common(context, turn.prompt)
        pause = max(0.0, after.at - (turn.ended or 0.0)) if after is not None else 0.0
        calls.append(Call(keep, turn.prompt[keep:], tuple(turn.said), len(turn.said), turn.tools, pause))
        context = [*turn.prompt, *turn.said]
    tenant, _, own = name.partition("/")
    at = turns[0].at if turns else 0.0
    return Session(own or name, tuple(calls), tenant=tenant if own else "default", at=at)
