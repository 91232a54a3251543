"""How long a step and a move take on some device: a few measured or stated numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A step takes a fixed time, a time for each prompt token and each pair that its attention looks at, and one for
    each turn that speaks and each token of its context, which has to be read again.

    The default is a stated one, not measured: the roofline of a model of eight billion parameters in 16 bits (32
    layers, 8 key-value heads of 128) on a card of 3.35 TB/s and 400 TFLOP/s, as far as such models reach it, with
    25 GB/s to host memory and 3 GB/s to a disk.
    """

    name: str = "stated: 8B in 16 bits, 3.35 TB/s, 400 TFLOP/s"
    step_s: float = 5e-3
    token_s: float = 4e-5
    pair_s: float = 1.3e-9
    row_s: float = 4e-5
    seen_s: float = 3.9e-8
    host_s: float = 5.2e-6
    """For a token on its way to or from host memory."""
    disk_s: float = 4.4e-5
    """The same for what lies lower."""
    move_s: float = 1e-4
    """For each move, whatever its size."""
    chunk: int = 512
    """Tokens of a step at most."""

    def seconds(self, prefill: float, pairs: float, rows: float, seen: float) -> float:
        """A forward pass over so many prompt tokens, and one token for each of so many turns."""
        return self.step_s + prefill * self.token_s + pairs * self.pair_s + rows * self.row_s + seen * self.seen_s

    def alone(self, known: int, prompt: int, out: int) -> float:
        """A call on a device that does nothing else and has the first `known` tokens of its prompt."""
        new = max(1, prompt - known)
        steps = -(-new // self.chunk)
        pairs = new * (prompt - new) + new * new / 2
        first = steps * self.seconds(new / steps, pairs / steps, 0, 0)
        more = out - 1
        return first + more * self.seconds(0, 0, 1, prompt + (more + 1) / 2)

    def move(self, tier: str, tokens: int) -> float:
        """Copying so many tokens to a tier, or from it."""
        return self.move_s + tokens * (self.host_s if tier == "host" else self.disk_s)
