"""Windows and views: equal to doing it by hand with NumPy, one pixel and one class at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.structures import (
    ClassInfo,
    ImageMeta,
    MaskOutput,
    RoadLaneOutput,
    SemanticOutput,
)
from rtseg.tasks.panoptic import PanopticTask
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from rtseg.tasks.semantic_masks import SemanticMasksTask
from rtseg.tasks.views import Windows, can_average, predict

CLASSES = tuple(ClassInfo(name, (index, 2, 3), thing=True) for index, name in enumerate("abc"))
TASK = SemanticTask(CLASSES)


def whole(height: int, width: int) -> ImageMeta:
    return ImageMeta("a.png", (height, width), (height, width), (0, 0))


def picture(height: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


class Pointwise(nn.Module):
    """Logits of a pixel from its color alone."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(torch.einsum("kc,bchw->bkhw", self.matrix, images))


class Local(nn.Module):
    """Logits at half the size that depend on the neighborhood and on the place in the input."""

    def forward(self, images: Tensor) -> SemanticOutput:
        small = F.avg_pool2d(images, 2)
        ramp = torch.linspace(0, 2, small.shape[-1])
        return SemanticOutput(small * (1 + ramp) + small.roll(1, -2))


# ---------------------------------------------------------------- windows
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_windows_cover_every_pixel_and_end_at_the_border(length: int, side: int, step: int) -> None:
    step = min(step, side)
    places = [rows for rows, _ in Windows((side, 1), (step, 1)).places(length, 1)]
    starts = [rows.start for rows in places]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert {pixel for start in starts for pixel in range(start, start + side)} >= set(range(length))
    if side <= length:
        assert places[-1].stop == length
    assert all(b - a == step for a, b in itertools.pairwise(starts[:-1]))
    if len(starts) > 1:
        assert starts[-1] - starts[-2] <= step


def test_places_of_a_case_worked_out_by_hand() -> None:
    found = Windows((4, 6), (3, 6)).places(9, 6)
    assert found == [
        (slice(0, 4), slice(0, 6)), (slice(3, 7), slice(0, 6)), (slice(5, 9), slice(0, 6)),
    ]  # fmt: skip
    assert [rows.start for rows, _ in Windows((4, 1), (4, 1)).places(8, 1)] == [0, 4]


def test_windows_advance_by_two_thirds_by_default() -> None:
    assert Windows((512, 512)).steps == (342, 342)
    assert Windows((3, 1)).steps == (2, 1)
    assert Windows((6, 9), (2, 9)).steps == (2, 9)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        ((8, 8), (9, 8), "larger than the window"),
        ((8, 8), (8, 9), "larger than the window"),
        ((0, 8), None, "must be positive"),
        ((8, 8), (0, 1), "must be positive"),
    ],
)
def test_windows_that_leave_pixels_out_are_refused(size: Any, stride: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Windows(size, stride)


@given(
    st.tuples(st.integers(5, 20), st.integers(5, 20)),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_windows_change_nothing_for_a_network_that_looks_at_single_pixels(
    size: tuple[int, int], window: tuple[int, int], seed: int
) -> None:
    image, meta = picture(*size, seed=seed), whole(*size)
    model = Pointwise()
    expected = TASK.postprocess(model(image[None]), [meta], confidence=True)[0]
    found = predict(model, TASK, [(image, meta, False)], windows=Windows(window), confidence=True)
    assert np.array_equal(found.mask, expected.mask)
    assert np.allclose(found.confidence, expected.confidence, atol=2e-3)  # float16


def test_logits_are_averaged_where_windows_overlap() -> None:
    image, meta = picture(10, 14), whole(10, 14)
    model, windows = Local(), Windows((6, 8), (3, 5))
    total, count = np.zeros((3, 10, 14)), np.zeros((10, 14))
    for top in (0, 3, 4):
        for left in (0, 5, 6):
            part = image[None, :, top : top + 6, left : left + 8]
            logits = F.interpolate(model(part).logits, size=(6, 8), mode="bilinear")[0]
            total[:, top : top + 6, left : left + 8] += logits.numpy()
            count[top : top + 6, left : left + 8] += 1
    found = predict(model, TASK, [(image, meta, False)], windows=windows, confidence=True)
    mean = total / count
    assert np.array_equal(found.mask, mean.argmax(0))
    shares = np.exp(mean) / np.exp(mean).sum(0)
    assert np.allclose(found.confidence, shares.max(0), atol=1e-3)
    at_once = predict(model, TASK, [(image, meta, False)])
    assert not np.array_equal(found.mask, at_once.mask)


def test_padding_is_cut_off_and_the_size_of_the_source_restored() -> None:
    image = picture(16, 24)
    meta = ImageMeta("a.png", (24, 44), (12, 22), (4, 2))
    found = predict(Pointwise(), TASK, [(image, meta, False)], windows=Windows((8, 8)))
    expected = TASK.postprocess(Pointwise()(image[None]), [meta])[0]
    assert found.mask.shape == (24, 44)
    assert np.array_equal(found.mask, expected.mask)
    assert found.source == "a.png"


# ---------------------------------------------------------------- views
def softmax(logits: Any) -> Any:
    power = np.exp(logits - logits.max(0))
    return power / power.sum(0)


def test_softmax_shares_of_views_are_averaged_at_the_pixels_of_the_image() -> None:
    model = Local()
    image, small = picture(8, 12), picture(4, 6, seed=3)
    looks = [
        (image, whole(8, 12), False),
        (image.flip(-1), whole(8, 12), True),
        (small, ImageMeta("a.png", (8, 12), (4, 6), (0, 0)), False),
    ]
    shares = []
    for part, _, mirrored in looks:
        logits = F.interpolate(model(part[None]).logits, size=(8, 12), mode="bilinear")[0].numpy()
        shares.append(softmax(logits[..., ::-1] if mirrored else logits))
    mean = np.mean(shares, axis=0)
    found = predict(model, TASK, looks, confidence=True)
    assert np.array_equal(found.mask, mean.argmax(0))
    assert np.allclose(found.confidence, mean.max(0), atol=1e-3)
    assert not np.array_equal(found.mask, sum(np.log(s) for s in shares).argmax(0))  # not logits


def test_one_look_is_what_the_task_makes_of_it() -> None:
    image, meta = picture(8, 12), whole(8, 12)
    expected = TASK.postprocess(Local()(image[None]), [meta])[0]
    assert np.array_equal(predict(Local(), TASK, [(image, meta, False)]).mask, expected.mask)


def test_a_single_mirrored_look_is_turned_back() -> None:
    image, meta = picture(8, 12), whole(8, 12)
    plain = predict(Pointwise(), TASK, [(image, meta, False)])
    turned = predict(Pointwise(), TASK, [(image.flip(-1), meta, True)])
    assert np.array_equal(turned.mask, plain.mask)


def test_classes_without_any_share_do_not_break_the_average() -> None:
    class Sure(nn.Module):
        def forward(self, images: Tensor) -> SemanticOutput:
            logits = torch.full((1, 3, *images.shape[-2:]), -1e9)
            logits[:, 1] = 0
            return SemanticOutput(logits)

    look = (picture(4, 4), whole(4, 4), False)
    found = predict(Sure(), TASK, [look, look], confidence=True)
    assert (found.mask == 1).all()
    assert (found.confidence == 1).all()


# ---------------------------------------------------------------- other tasks
class Masks(nn.Module):
    """Masks from colors, at half the size; classes that depend on the mean of the input."""

    def forward(self, images: Tensor) -> MaskOutput:
        masks = F.avg_pool2d(torch.cat([images, images.square() - 1], dim=1), 2) * 3
        queries = torch.arange(6).remainder(3)
        return MaskOutput(4 * F.one_hot(queries, 4).float()[None] + images.mean(), masks)


@pytest.mark.parametrize("order", ["sigmoid_first", "resize_first"])
def test_sums_over_masks_are_averaged(order: Any) -> None:
    task = SemanticMasksTask(CLASSES, sem_order=order)
    image, meta = picture(8, 12), whole(8, 12)
    plain = task.postprocess(Masks()(image[None]), [meta], confidence=True)[0]
    window = predict(
        Masks(), task, [(image, meta, False)], windows=Windows((8, 12)), confidence=True
    )
    look = (image, meta, False)
    twice = predict(Masks(), task, [look, look], confidence=True)
    for found in (window, twice):
        assert np.array_equal(found.mask, plain.mask)
        assert np.allclose(found.confidence, plain.confidence, atol=1e-3)


def test_pixels_that_no_mask_covers_have_a_confidence_that_is_a_number() -> None:
    class Empty(nn.Module):
        def forward(self, images: Tensor) -> MaskOutput:
            return MaskOutput(torch.zeros(1, 2, 4), torch.full((1, 2, *images.shape[-2:]), -1e4))

    look = (picture(4, 4), whole(4, 4), False)
    found = predict(Empty(), SemanticMasksTask(CLASSES), [look, look], confidence=True)
    assert np.isfinite(found.confidence).all()


def test_masks_are_resized_first_if_the_task_says_so() -> None:
    image, meta = picture(6, 6, seed=2) * 4, whole(6, 6)
    looks = [(image, meta, False), (image.flip(-1), meta, True)]
    found = {
        order: predict(Masks(), SemanticMasksTask(CLASSES, sem_order=order), looks, confidence=True)
        for order in ("sigmoid_first", "resize_first")
    }
    assert not np.array_equal(found["sigmoid_first"].confidence, found["resize_first"].confidence)


class Roads(nn.Module):
    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.kinds = kinds

    def forward(self, images: Tensor) -> RoadLaneOutput:
        maps = {"drivable": images[:, :2], "lane": images[:, 1:] - 0.3}
        return RoadLaneOutput(*(maps[k] if k in self.kinds else None for k in ("drivable", "lane")))


@pytest.mark.parametrize("kinds", [("drivable", "lane"), ("drivable",), ("lane",)])
def test_both_maps_of_a_road_are_averaged_each_for_itself(kinds: tuple[str, ...]) -> None:
    task = RoadLaneTask((), tasks="both" if len(kinds) == 2 else kinds[0])  # type: ignore[arg-type]
    image, other = picture(6, 8), picture(6, 8, seed=5)
    looks = [(image, whole(6, 8), False), (other, whole(6, 8), False)]
    found = predict(Roads(*kinds), task, looks)
    for kind in ("drivable", "lane"):
        if kind not in kinds:
            assert getattr(found, kind) is None
            continue
        maps = [getattr(Roads(*kinds)(item[None]), kind)[0].numpy() for item in (image, other)]
        mean = sum(softmax(item) for item in maps)
        assert np.array_equal(getattr(found, kind), mean[1] > mean[0])
    windows = predict(Roads(*kinds), task, looks[:1], windows=Windows((3, 3)))
    expected = task.postprocess(Roads(*kinds)(image[None]), [whole(6, 8)])[0]
    assert np.array_equal(getattr(windows, kinds[0]), getattr(expected, kinds[0]))


def test_tasks_whose_masks_do_not_correspond_are_refused() -> None:
    task = PanopticTask(CLASSES)
    look = (picture(8, 8), whole(8, 8), False)
    assert predict(Masks(), task, [look]).ids.shape == (8, 8)
    assert not can_average(task)
    assert can_average(TASK)
    with pytest.raises(ConfigError, match="PanopticTask gives no scores of pixels"):
        predict(Masks(), task, [look, look])
