"""Pages hold what was written to them, where the table says, and copies touch nothing else."""

from __future__ import annotations

import pytest
import torch

from sostenuto.kvstore import Shape
from sostenuto.kvstore.pages import Pages
from sostenuto.kvstore.staging import Staging

SHAPE = Shape(layers=2, kv_heads=3, head_dim=4, dtype="float32", page=8)


def numbered(room: int = 4) -> Pages:
    """Every number in every tensor is another."""
    pages = Pages(SHAPE, room)
    for index, tensor in enumerate((*pages.k, *pages.v)):
        tensor.copy_(torch.arange(tensor.numel()).view_as(tensor) + index * tensor.numel())
    return pages


def test_a_shape_counts_keys_and_values_of_all_layers() -> None:
    assert SHAPE.bytes_per_token == 2 * 2 * 3 * 4 * 4
    assert Shape(30, 3, 64, "bfloat16", 32).bytes_per_token == 23_040
    assert SHAPE.bytes_per_page == 8 * SHAPE.bytes_per_token


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"kv_heads": 0}, {"head_dim": -1}, {"page": 0}, {"dtype": "int8"}])
def test_a_shape_of_nothing_or_of_an_unknown_dtype_is_refused(wrong: dict[str, int | str]) -> None:
    values: dict[str, object] = {"layers": 1, "kv_heads": 1, "head_dim": 1, "dtype": "float32", "page": 1, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shape(**values)  # type: ignore[arg-type]


def test_the_tensors_hold_as_many_bytes_as_the_shape_says() -> None:
    pages = Pages(SHAPE, 5)
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*pages.k, *pages.v))
    assert held == 5 * SHAPE.bytes_per_page


@pytest.mark.parametrize("tokens", [0, 1, 5, 8])
def test_a_copy_takes_the_first_tokens_in_all_layers_and_leaves_everything_else(tokens: int) -> None:
    pages, before = numbered(), numbered()
    pages.copy(3, 1, tokens)
    for now, then in zip((*pages.k, *pages.v), (*before.k, *before.v), strict=True):
        expected = then.clone()
        expected[:, 8 : 8 + tokens] = then[:, 24 : 24 + tokens]
        assert torch.equal(now, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("tokens", [1, 5, 8])
@pytest.mark.parametrize("way", ["as bytes", "as on a device"])
def test_what_is_read_of_a_page_is_what_can_be_written_to_another_and_nothing_else_changes(
    way: str, tokens: int, dtype: str
) -> None:
    pages = Pages(Shape(2, 3, 4, dtype, 8), 4)
    if way == "as on a device":
        pages._bytes = None
    for tensor in (*pages.k, *pages.v):
        tensor.normal_()
    before = [tensor.clone() for tensor in (*pages.k, *pages.v)]
    whole, part = pages.read(3, 8), pages.read(3, tokens)
    layers = [torch.stack((key[:, 24 : 24 + tokens], value[:, 24 : 24 + tokens])) for key, value in pairs(pages)]
    assert torch.equal(torch.frombuffer(part, dtype=tensor.dtype), torch.stack(layers).flatten())
    pages.write(1, tokens, bytes(whole))  # more than is wanted of it
    pages.write(2, tokens, part)
    for now, then in zip((*pages.k, *pages.v), before, strict=True):
        for at in (8, 16):
            then[:, at : at + tokens] = then[:, 24 : 24 + tokens]
        assert torch.equal(now, then)


def pairs(pages: Pages) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(pages.k, pages.v, strict=True))


@pytest.mark.parametrize("data", [bytes(5 * 192 - 4), bytes(5 * 192 + 4)])
def test_bytes_of_too_few_tokens_or_a_part_of_one_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="5 tokens were to be written; found 9"):
        numbered().write(0, 5, data)


def test_slots_follow_the_table_across_pages_and_from_within_one() -> None:
    pages = Pages(SHAPE, 10)
    table = (7, 2, 5)
    every = [page * 8 + at for page in table for at in range(8)]
    for start in range(25):
        for stop in range(start, 25):
            assert pages.slots(table, start, stop).tolist() == every[start:stop]


def test_a_table_that_is_too_short_says_so() -> None:
    with pytest.raises(IndexError, match=r"position 16 .* 2 pages of 8 end at 16"):
        Pages(SHAPE, 4).slots((0, 1), 10, 17)


@pytest.mark.parametrize("page", [-1, 4])
def test_pages_that_are_not_here_are_named(page: int) -> None:
    pages = Pages(SHAPE, 4)
    with pytest.raises(IndexError, match=f"page {page} was named; pages 0 to 3 are here"):
        pages.slots((0, page), 0, 9)
    with pytest.raises(IndexError, match=f"page {page} "):
        pages.copy(page, 0, 1)
    with pytest.raises(IndexError, match=f"page {page} "):
        pages.copy(0, page, 1)


def test_a_copy_of_more_than_a_page_and_a_room_without_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="a page holds 8"):
        Pages(SHAPE, 2).copy(0, 1, 9)
    with pytest.raises(ValueError, match="at least one"):
        Pages(SHAPE, 0)


def test_the_text_of_pages_shows_their_state() -> None:
    assert repr(Pages(SHAPE, 4)) == "Pages(room=4, page=8, 0.0 MiB of float32 on cpu)"


@pytest.mark.parametrize("tokens", [1, 5, 8])
def test_what_went_out_through_staging_comes_in_again_and_is_a_copy_of_its_own(tokens: int) -> None:
    staging = Staging(SHAPE, torch.device("cpu"))
    size = (SHAPE.layers, 2, SHAPE.kv_heads, tokens, SHAPE.head_dim)
    one, other = torch.randn(size), torch.randn(size)
    data = staging.out(one)
    staging.out(other)
    assert len(data) == tokens * SHAPE.bytes_per_token
    assert bytes(data) == one.numpy().tobytes()
    shorter = torch.zeros(*size[:3], 1, SHAPE.head_dim)
    staging.fill(shorter, data)
    assert torch.equal(shorter, one[..., :1, :])
