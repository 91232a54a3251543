"""The geometry of a block for one model: layers, heads, dtype, bytes."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the keys and values of one model are. All layers are alike; families that are not are refused."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    page: int
    """Tokens in a page."""

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "page"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}: a block has at least one of each")
        if self.dtype not in _BYTES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(_BYTES)}")

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _BYTES[self.dtype]

    @property
    def bytes_per_page(self) -> int:
        """Keys and values of one full page in all layers."""
        return self.bytes_per_token * self.page
