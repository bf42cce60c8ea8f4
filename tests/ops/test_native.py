"""The compiled kernel against torch and against double precision, for every instruction set."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rtseg.ops import native
from rtseg.ops.native import Window
from rtseg.ops.resize import resize_argmax_reference

LAYOUTS = ("contiguous", "channels_last", "strided")
ULPS = 4 * torch.finfo(torch.float32).eps
"""How far below the best score the chosen one may lie, as a share of the largest in the image."""


def variants() -> list[str]:
    """Return the instruction sets of this machine; a missing library is a failure."""
    library = native.library()
    if library is None:
        if shutil.which("g++") or shutil.which("c++"):
            pytest.fail("the kernels are not built: pip install -e . again")
        pytest.skip("the kernels are not built, and there is no compiler")
    known = {number: name for name, number in native.VARIANTS.items() if number}
    return [known[number] for number in range(1, library.rtseg_best_variant() + 1)]


@pytest.fixture(autouse=True)
def _automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


def laid_out(logits: Tensor, layout: str) -> Tensor:
    """Return the same scores in another memory layout."""
    if layout == "channels_last":
        return logits.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = logits.new_full((*logits.shape[:2], 2 * logits.shape[2], logits.shape[3] + 3), 1e4)
        part = wide[:, :, ::2, 1:-2]
        part.copy_(logits)
        return part
    return logits.contiguous()


def matrix(length: int, target: int) -> np.ndarray:
    """Return the shares (target, length) of all pixels in each resized one, in double precision.

    Positions are computed in float32, as everybody does.
    """
    scale, half = np.float32(length) / np.float32(target), np.float32(0.5)
    found = np.zeros((target, length))
    for i in range(target):
        position = max(scale * (np.float32(i) + half) - half, np.float32(0))
        low = min(int(position), length - 1)
        share = float(position) - low if low + 1 < length else 0.0
        found[i, low] += 1 - share
        found[i, min(low + 1, length - 1)] += share
    return found


def require_best(chosen: Tensor, logits: Tensor, size: tuple[int, int], window: Window) -> None:
    """Assert that every class is the best one, but for rounding, and the lowest if all is exact."""
    rows, columns = (
        matrix(length, target) for length, target in zip(logits.shape[2:], size, strict=True)
    )
    rows = rows[window.top : window.top + window.rows]
    columns = columns[window.left : window.left + window.columns]
    scores = rows @ logits.double().numpy() @ columns.T
    picked = np.take_along_axis(scores, chosen.long().numpy()[:, None], axis=1)[:, 0]
    slack = ULPS * max(float(logits.double().abs().max()), 1e-30)
    assert (scores.max(axis=1) - picked).max() <= slack
    second = np.sort(scores, axis=1)[:, -2] if scores.shape[1] > 1 else picked - 1
    clear = picked - second > 2 * slack
    assert np.array_equal(chosen.numpy()[clear], scores.argmax(axis=1)[clear])


# ---------------------------------------------------------------- agreement
@pytest.mark.parametrize("classes", [1, 2, 11, 19, 150, 256, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_variant_finds_the_best_class(classes: int, dtype: torch.dtype) -> None:
    torch.manual_seed(classes)
    for shape, size in (((5, 11), (40, 88)), ((13, 20), (15, 40)), ((20, 40), (7, 11))):
        logits = torch.randn(2 if classes < 20 else 1, classes, *shape).to(dtype)
        expected = resize_argmax_reference(logits, size)
        assert expected.dtype == (torch.uint8 if classes <= 256 else torch.int64)
        for variant in variants():
            for layout in LAYOUTS:
                got = native.resize_argmax(
                    laid_out(logits, layout), size, Window(0, 0, *size), variant=variant
                )
                assert got.dtype == expected.dtype
                require_best(got, logits, size, Window(0, 0, *size))
                assert (got != expected).float().mean() < 1e-3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_size_any_window_any_number_of_threads(data: st.DataObject) -> None:
    side, target = st.integers(1, 40), st.integers(1, 90)
    logits = torch.randn(
        data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12)), data.draw(side),
        data.draw(side), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))),
    )  # fmt: skip
    size = (data.draw(target), data.draw(target))
    top, left = (data.draw(st.integers(0, end - 1)) for end in size)
    window = Window(
        top, left, data.draw(st.integers(1, size[0] - top)),
        data.draw(st.integers(1, size[1] - left)),
    )  # fmt: skip
    got = native.resize_argmax(
        laid_out(logits, data.draw(st.sampled_from(LAYOUTS))), size, window,
        variant=data.draw(st.sampled_from(variants())), threads=data.draw(st.integers(1, 3)),
    )  # fmt: skip
    require_best(got, logits, size, window)


def test_large_maps_are_the_same_with_any_number_of_threads() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 19, 33, 61)
    size = (33 * 8, 61 * 8)
    expected = resize_argmax_reference(logits, size)
    for variant in variants():
        for threads in (1, 2, 3):
            got = native.resize_argmax(
                logits, size, Window(0, 0, *size), variant=variant, threads=threads
            )
            assert (got != expected).sum() <= 1


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("classes", [3, 300])
def test_exact_ties_go_to_the_lowest_class(factor: int, classes: int) -> None:
    torch.manual_seed(factor)
    logits = torch.randint(-2, 3, (2, classes, 7, 19)).float()  # shares of 2^-n: no rounding
    size = (7 * factor, 19 * factor)
    expected = resize_argmax_reference(logits, size)
    for variant in variants():
        got = native.resize_argmax(logits, size, Window(0, 0, *size), variant=variant)
        assert torch.equal(got, expected)


def test_pixels_between_equal_classes_take_that_class() -> None:
    """Large regions, as in street scenes, where whole cells are filled without resizing."""
    torch.manual_seed(0)
    regions = torch.randint(0, 5, (1, 4, 6)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    logits = 4 * nn.functional.one_hot(regions, 5).permute(0, 3, 1, 2) + torch.rand(1, 5, 32, 48)
    expected = resize_argmax_reference(logits, (256, 384))
    assert (expected != regions.repeat_interleave(8, 1).repeat_interleave(8, 2)).any()
    for variant in variants():
        got = native.resize_argmax(
            logits.contiguous(), (256, 384), Window(0, 0, 256, 384), variant=variant
        )
        assert (got != expected).sum() <= 1
        inside = got[0, 8:56, 8:56]  # between pixel centers of the first region
        assert (inside == regions[0, 0, 0]).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("factor", [1, 4])
def test_scores_that_are_not_finite_count_as_in_torch(
    value: float, dtype: torch.dtype, factor: int
) -> None:
    torch.manual_seed(0)
    logits = torch.randint(-9, 9, (1, 6, 12, 40)).to(dtype)
    logits[torch.rand(logits.shape) < 0.02] = value
    size = (12 * factor, 40 * factor)
    expected = resize_argmax_reference(logits, size)
    for variant in variants():
        got = native.resize_argmax(logits, size, Window(0, 0, *size), variant=variant)
        assert torch.equal(got, expected)


def test_small_numbers_of_half_precision_keep_their_order() -> None:
    tiny = torch.arange(1, 40).view(1, 39, 1, 1) * 2.0**-24  # below the smallest normal number
    logits = tiny.half().expand(1, 39, 3, 3)
    for variant in variants():
        for sign, best in ((1, 38), (-1, 0)):
            got = native.resize_argmax(sign * logits, (9, 9), Window(0, 0, 9, 9), variant=variant)
            assert (got == best).all()
