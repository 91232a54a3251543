"""A policy of one's own in twenty lines: for the engine here, or `simulate --policy examples/own_policy.py:MINE`.

Programs keep their context as long as their tools usually take; and whoever has the shortest prompt is first.
"""

from __future__ import annotations

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.host import Host
from sostenuto.scheduler import Pause, Policy, Program, Retention, Waiting, World


def shortest_first(world: World, turn: Waiting) -> tuple[float, ...]:
    return (turn.tokens, turn.number)


def while_quick(world: World, program: Program, pause: Pause) -> Retention:
    seen = world.forecasts.of(pause.tools)
    usual = seen.curve.quantile(0.9) if seen.count else 1.0
    return Retention(min(usual, 30.0) if pause.tools else 0.0, f"its tools take {usual:.2g} s")


def any_hold_yields(world: World, holder: Program, wanting: Waiting) -> bool:
    return True


MINE = Policy(name="mine", order=shortest_first, retain=while_quick, yields=any_hold_yields)


def main(model: str | None = None) -> None:
    with Host.open(model, policy=MINE, pool_tokens=2048) as host:
        answers = [host.ask(Ask((Message("user", text),))) for text in ("Count to three.", "Say hello, and no more.")]
        for answer in answers:
            print(answer.wait().text)
        print(repr(host))


if __name__ == "__main__":
    main()
