"""A conversation moves to another host with all that is computed of it: one call to pack it, one to unpack it."""

from __future__ import annotations

from sostenuto.runtime.answer import Answer
from sostenuto.runtime.ask import Message
from sostenuto.runtime.host import Host
from sostenuto.runtime.session import Session

STORY = "A tuner climbs into the organ loft and listens to every pipe, the smallest first. " * 20


def told(where: str, answer: Answer) -> None:
    facts = answer.facts
    print(f"{where}: prompt {facts.prompt_tokens}, reused {facts.reused_tokens}, computed {facts.computed_tokens}")


def main() -> None:
    with Host.open(pool_tokens=4096, host_tokens=4096) as here, Session(here) as session:
        session.read([Message("user", f"{STORY}\nWhat does the tuner do?")])
        told("here ", session.generate(max_tokens=24))
        parcel = session.pack()
    print(f"the parcel has {len(parcel):,} bytes")
    # The other host would be another process, or another machine: the parcel is all that it gets.
    with Host.open(pool_tokens=4096, host_tokens=4096) as there, Session.unpack(there, parcel) as session:
        session.read([Message("user", "And then?")])
        told("there", session.generate(max_tokens=24))


if __name__ == "__main__":
    main()
