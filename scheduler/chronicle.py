"""What turns and programs do, noted as it happens: pauses and returns, service and its fair shares, demand for pages.

Everything here is a sum or a mean that one event changes in constant time; policies read it through their world.
"""

from __future__ import annotations

from collections.abc import Callable

from .forecast import joint
from .meters import Fading, Meters
from .setting import Setting
from .turn import Turn
from .world import Pause, Program

WINDOW_S = 5.0
"""A policy's window is asked for this often, as long as anything happens."""


class Chronicle:
    """Notes of one schedule. `repr` shows what is wanted and how busy programs are."""

    def __init__(self, setting: Setting, pages: Callable[[int], int]) -> None:
        """`pages` says how many pages a context of so many tokens takes."""
        self.forecasts = setting.forecasts
        self.meters = Meters()
        self.acting = Fading()
        self.demand = 0
        """Pages that the contexts of turns and pauses want."""
        self.fresh = 0
        """Those of them that turns of programs want which have not begun."""
        self.calls = 0
        """Tool calls that are out."""
        self.seen = 0
        self.active = 0
        self.window = float("inf")
        self._asked = 0.0
        self._shares = setting.shares
        self._pages = pages
        self._finish: dict[str, float] = {}  # by tenant, seconds of service over its share
        self._virtual = 0.0

    # -- turns

    def entered(self, turn: Turn) -> None:
        """A turn has arrived: what its branch waited for is back."""
        program = turn.program
        pause = self.returned(program, turn.arrived.branch, turn.since)
        if pause is not None:
            out = turn.since - pause.since
            self.forecasts.observe(joint(pause.tools), out, pause.shape)
            self.meters.away.add(out)
        turn.path = program.path
        turn.wanted = self._pages(len(turn.tokens))
        self.demand += turn.wanted
        turn.fresh = not program.turns
        self.fresh += turn.wanted * turn.fresh

    def began(self, turn: Turn, reuse: int, now: float) -> None:
        """A turn begins to run, or goes on after it was taken out."""
        turn.began = now
        self._begun(turn)
        turn.rows = len(turn.tokens) - reuse
        self.seen += len(turn.tokens)
        program = turn.program
        if not turn.preempted:
            program.waited += now - turn.since
            if program.turns > 0 and 2 * reuse < program.tokens:
                self.meters.queued.add(now - turn.since)
        tenant = program.tenant
        self._virtual = max(self._virtual, self._finish.get(tenant, 0.0))
        self._finish[tenant] = self._virtual

    def said(self, turn: Turn, count: int) -> None:
        """It has said so many tokens."""
        self.seen += count
        turn.rows += count

    def stopped(self, turn: Turn, now: float) -> None:
        """It runs no more."""
        ran = now - turn.began
        self.seen -= len(turn.tokens)
        turn.ran += ran
        program = turn.program
        program.served += ran
        program.work += turn.rows
        tenant = program.tenant
        share = self._shares.get(tenant, 1.0)
        self._finish[tenant] = self._finish.get(tenant, 0.0) + ran / share

    def left(self, turn: Turn) -> None:
        """It is gone."""
        self.demand -= turn.wanted
        self._begun(turn)
        if turn.ran:
            program = turn.program
            program.path = max(program.path, turn.path + turn.ran)
            program.tokens = len(turn.tokens)
            self.meters.reason.add(turn.ran)
            self.meters.pages.add(self._pages(len(turn.tokens)))

    # -- pauses and tools

    def called(self, program: Program, call: str, tool: str, now: float) -> None:
        """A tool began to run."""
        self.calls += call not in program.tools
        program.tools[call] = (tool, now)

    def answered(self, program: Program, call: str) -> None:
        """It came back."""
        self.calls -= program.tools.pop(call, None) is not None

    def paused(self, turn: Turn, pause: Pause) -> None:
        """It left a context for which its program will come back."""
        program = turn.program
        self.returned(program, pause.branch, pause.since)
        program.pauses[pause.branch] = pause
        pages = self._pages(pause.tokens)
        self.demand += pages
        self.acting.add(pages, pause.since, pause.since)

    def returned(self, program: Program, branch: str, now: float) -> Pause | None:
        """Nobody waits any more for the tools of a branch."""
        pause = program.pauses.pop(branch, None)
        if pause is not None:
            pages = self._pages(pause.tokens)
            self.demand -= pages
            self.acting.add(-pages, now, pause.since)
        return pause

    def over(self, program: Program, now: float) -> None:
        """Nobody waits any more for any of its tools."""
        for branch in list(program.pauses):
            self.returned(program, branch, now)
        self.calls -= len(program.tools)
        program.tools.clear()

    def finished(self, program: Program) -> None:
        """A program has said what it was asked for."""
        if program.turns:
            self.meters.finished(program.turns)

    def lead(self, tenant: str) -> float:
        """As World says; 0 as long as there is but one."""
        if len(self._finish) < 2:
            return 0.0
        return max(0.0, self._finish.get(tenant, 0.0) - self._virtual)

    def ask(self, now: float, window: Callable[[float], float]) -> None:
        """Have the window set anew, if it is time for that."""
        if now >= self._asked:
            self.window = window(self.window)
            self._asked = now + WINDOW_S

    def _begun(self, turn: Turn) -> None:
        """Its program is no new one any more."""
        self.fresh -= turn.wanted * turn.fresh
        turn.fresh = False

    def __repr__(self) -> str:
        return f"<Chronicle {self.demand} pages wanted | {self.meters!r}>"
