"""Edits of saved threads that cannot be made are refused, and whoever would meet one half way is turned away."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from sostenuto.runtime.doors.langgraph_saver import BoundSaver
from sostenuto.runtime.errors import BadEdit, Busy

from .savers import EDITS, Edit, Heard, Mortal, cut, everything, grown, held, plain, threads, told


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda saver: saver.copy_thread("t", "t"), "cannot be copied onto itself"),
        (lambda saver: saver.copy_thread("t", "u"), "thread 'u' holds 4 checkpoints; copy onto a new thread"),
        (lambda saver: saver.copy_thread("nobody", "new"), "thread 'nobody' has no checkpoints to copy"),
        (lambda saver: saver.prune(["t"], strategy="oldest"), "found the strategy 'oldest', expected 'keep_latest'"),
        (lambda saver: saver.prune("t"), r"found the string 't', expected a sequence of threads, like \['t'\]"),
        (lambda saver: saver.delete_for_runs("r1"), "expected a sequence of runs"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(edit: Edit, says: str) -> None:
    heard, inner = Heard(), InMemorySaver()
    grown(inner)
    before = everything(inner)
    with pytest.raises(BadEdit, match=says):
        edit(BoundSaver(inner, heard))
    assert everything(inner) == before
    assert heard.told == []


def test_an_unfinished_copy_is_not_taken_for_another_one() -> None:
    refused = 0
    for inner, _, _ in cut(EDITS["copy_thread"], late=True):
        saver = BoundSaver(inner)
        if held(inner, "new") and len(threads(inner)) == 4:
            with pytest.raises(BadEdit, match="thread 'new' holds an unfinished copy of 't'"):
                saver.copy_thread("u", "new")
            refused += 1
    assert refused > 1


@pytest.mark.parametrize("name", sorted({*EDITS} - {"delete"}))  # which only deletes
def test_what_meets_an_edit_half_way_is_turned_away(name: str) -> None:
    turned: list[str] = []

    class Meeting(Mortal):
        """Everything happens while a checkpoint is put or a thread is deleted."""

        def mortal(self, call: Any, *arguments: Any, **asked: Any) -> Any:
            if call.__name__ == "delete_thread" and len(turned) < 5:
                thread = "new" if held(self, "new") else "t"
                for other in (
                    lambda: saver.get_tuple(told(thread)),
                    lambda: [*saver.list(told(thread))],
                    lambda: saver.put_writes(told(thread, checkpoint_id="x"), [], "task"),
                    lambda: plain(saver).invoke({"seen": []}, told(thread)),
                    lambda: saver.prune(["t"]),
                ):
                    with pytest.raises(Busy, match=r"is being pruned, copied or deleted|a run is saving"):
                        other()
                    turned.append(thread)
            return super().mortal(call, *arguments, **asked)

    inner = Meeting()
    saver = BoundSaver(inner)
    turned.extend("not yet" for _ in range(5))
    grown(inner)
    turned.clear()
    EDITS[name](saver)
    assert len(turned) == 5
    found = saver.get_tuple(told("u"))
    assert found is not None


def test_a_thread_is_not_edited_while_a_run_is_saving_to_it() -> None:
    class Meeting(InMemorySaver):
        def put(self, *arguments: Any) -> RunnableConfig:
            with pytest.raises(Busy, match="a run is saving to thread 't'; edit the thread when its runs have ended"):
                saver.prune(["t"])
            saver.prune(["another"])
            return super().put(*arguments)

    saver = BoundSaver(Meeting())
    plain(saver).invoke({"seen": []}, told("t"))
    assert len(held(saver, "t")) == 4
