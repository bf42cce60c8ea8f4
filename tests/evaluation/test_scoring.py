"""A checkpoint is scored under a protocol as one would do it by hand with the predictor."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.data.preprocess import Preprocess
from rtseg.data.views import Views
from rtseg.errors import ConfigError, DataError
from rtseg.evaluation import score
from rtseg.structures import Batch, Sample
from rtseg.tasks.views import Windows
from training.toy import CLASSES, PREPROCESS, Pictures, Toy


class Weathered(Pictures):
    """Pictures of several sizes with attributes and some void."""

    def __getitem__(self, index: int, /) -> Sample:
        sample = Pictures(10, size=(17 + index, 22 - index))[index]
        sample.labels["semantic"][:2, :3] = 255
        return replace(sample, attributes={"weather": ("rain", "sun")[index % 2]})


def toy(preprocess: Preprocess = PREPROCESS, *, task: str = "semantic") -> Checkpoint:
    torch.manual_seed(0)
    model = Toy().eval()
    with torch.no_grad():
        model.last.weight.mul_(4)
        model.last.bias.copy_(-model(torch.randn(1, 3, 32, 32)).logits.mean((0, 2, 3)))
    return Checkpoint(model, ModelInfo("", {}, task, CLASSES, asdict(preprocess)), Path())


def shares_by_hand(checkpoint: Checkpoint, image: Any, factor: float, *, mirrored: bool) -> Any:
    """Return softmax shares (K, H, W) of one look, made from the image with plain functions."""
    height, width = image.shape[:2]
    h, w = int(height * factor + 0.5), int(width * factor + 0.5)
    side = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
    pixels = torch.from_numpy(side).permute(2, 0, 1)[None]
    if (h, w) != (height, width):
        pixels = F.interpolate(pixels, (h, w), mode="bilinear", antialias=True)
    pixels = F.pad((pixels.float() - 127.5) / 60, (0, -w % 4, 0, -h % 4))
    with torch.no_grad():
        logits = checkpoint.model.eval()(pixels).logits
    full = F.interpolate(
        logits,
        (round(height * pixels.shape[2] / h), round(width * pixels.shape[3] / w)),
        mode="bilinear",
    )
    shares = full[0, :, :height, :width].softmax(0).numpy()
    return shares[..., ::-1] if mirrored else shares


def matrix_by_hand(checkpoint: Checkpoint, data: Any, looks: Any) -> Any:
    matrix = np.zeros((3, 3), np.int64)
    for index in range(len(data)):
        sample = data[index]
        total = sum(
            shares_by_hand(checkpoint, sample.image, factor, mirrored=mirrored)
            for factor, mirrored in looks
        )
        labels, mask = sample.labels["semantic"], total.argmax(0)
        np.add.at(matrix, (labels[labels != 255], mask[labels != 255]), 1)
    return matrix


@pytest.mark.parametrize(
    ("views", "looks"),
    [
        (Views(), [(1, False)]),
        (Views(scale=0.5), [(0.5, False)]),
        (Views(flip=True), [(1, False), (1, True)]),
        (Views(scales=(0.75, 1.0, 1.5)), [(0.75, False), (1, False), (1.5, False)]),
        (Views(0.5, (1.0, 2.0), flip=True), [(0.5, False), (0.5, True), (1, False), (1, True)]),
    ],
    ids=["plain", "half", "flip", "scales", "all"],
)
def test_scores_equal_those_of_views_made_by_hand(views: Views, looks: Any) -> None:
    data, checkpoint = Weathered(4), toy()
    found = score(checkpoint, data, views=views).metric.matrix()
    assert np.abs(found - matrix_by_hand(checkpoint, data, looks)).sum() <= 2  # ties of rounding
    if looks != [(1, False)]:
        assert not np.array_equal(found, score(checkpoint, data).metric.matrix())


def test_windows_reach_the_network() -> None:
    data, checkpoint = Weathered(3), toy()
    seen: list[tuple[int, ...]] = []
    checkpoint.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    windowed = score(checkpoint, data, windows=Windows((8, 12), (4, 6)))
    assert set(seen) == {(1, 3, 8, 12)}
    assert len(seen) == 4 * 3 + 4 * 3 + 4 * 3  # padded to 20x24 each: 4 rows, 3 columns
    assert windowed.metric.matrix().sum() == score(checkpoint, data).metric.matrix().sum()


def test_everything_together_reports_every_table() -> None:
    found = score(
        toy(), Weathered(5), views=Views(flip=True), windows=Windows((16, 16)), by=["weather"],
        boundary=True, per_image=True, worst=2,
    )  # fmt: skip
    assert [(group.value, group.images) for group in found.groups["weather"]] == [
        ("rain", 3), ("sun", 2),
    ]  # fmt: skip
    assert len(found.per_image) == 5
    assert len(found.worst) == 2
    assert {"boundary_iou", "image_miou", "miou"} <= found.scores.keys()
    assert list(found.per_class[0])[-1] == "boundary_iou"


def test_visitors_see_one_image_at_a_time() -> None:
    seen: list[Any] = []

    def visit(batch: Batch, results: list[Any]) -> None:
        seen.append((batch.images.shape, batch.meta[0].path, len(batch.target), results[0].mask))

    score(toy(), Weathered(2), visit=visit, views=Views(flip=True))
    assert [item[:3] for item in seen] == [
        ((1, 3, 20, 24), "picture/0", 1), ((1, 3, 20, 24), "picture/1", 1),
    ]  # fmt: skip
    assert seen[1][3].shape == (18, 21)


def test_reading_processes_change_nothing() -> None:
    options: dict[str, Any] = {"views": Views(scales=(0.5, 1.0)), "by": ["weather"]}
    alone, others = (score(toy(), Weathered(3), workers=n, **options) for n in (0, 1))
    assert alone.scores == others.scores
    assert alone.group_rows() == others.group_rows()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(workers: int) -> None:
    with pytest.raises(DataError, match="picture/1: cannot be read"):
        score(toy(), Pictures(3, bad=(1,)), workers=workers)


def test_labels_are_compared_at_the_size_of_the_input_where_the_protocol_says_so() -> None:
    rule = replace(PREPROCESS, size=(8, 12), score_at="input")
    found = score(toy(rule), Weathered(3), views=Views(flip=True))
    assert found.metric.matrix().sum() <= 3 * 8 * 12
    once = score(toy(rule), Weathered(3))
    assert once.metric.matrix().sum() == found.metric.matrix().sum() > 200
    with pytest.raises(ConfigError, match="fixed by score_at: input"):
        score(toy(rule), Weathered(3), views=Views(scale=0.5))


@pytest.mark.parametrize(
    "options", [{"views": Views(flip=True)}, {"views": Views(scales=(1.0, 2.0))},
                {"windows": Windows((4, 4))}],
)  # fmt: skip
def test_panoptic_results_are_not_averaged(options: Any) -> None:
    class Unread(Pictures):
        def __getitem__(self, index: int, /) -> Sample:
            raise AssertionError

    with pytest.raises(ConfigError, match="task 'panoptic' cannot be averaged"):
        score(toy(task="panoptic"), Unread(1), **options)


def test_windows_must_fit_the_stride_of_the_network() -> None:
    with pytest.raises(ConfigError, match="8x10 is no multiple of the network's stride 4"):
        score(toy(), Pictures(1), windows=Windows((8, 10)))
