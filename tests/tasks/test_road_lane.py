"""The task of road and lane maps: targets, losses, and maps at the size of the source image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError, DataError
from rtseg.losses.focal import focal_loss
from rtseg.losses.tversky import tversky_loss
from rtseg.models.twinmixing import twinmixing_nano
from rtseg.structures import Batch, ImageMeta, RoadLaneOutput, RoadLaneTarget, Sample
from rtseg.tasks import rebuild
from rtseg.tasks.road_lane import RoadLaneTask

LETTERBOX = Preprocess(
    mean=(0, 0, 0), std=(255, 255, 255), pad_value=(114, 114, 114), size=(36, 64),
    letterbox=(64, 64), antialias=False, mask_resize="max",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Fixed(nn.Module):
    """Return given logits whatever the image."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Any:
        return self.output


def step(output: Any, drivable: Tensor, lane: Tensor, **options: Any) -> dict[str, Tensor]:
    batch = Batch(torch.zeros(len(lane), 3, 4, 4), RoadLaneTarget(drivable, lane), ())
    return RoadLaneTask((), **options).training_step(Fixed(output), batch)


def scene() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = torch.randn(2, 2, 2, 8, 8)
    labels = torch.randint(0, 2, (2, 2, 8, 8))
    labels[:, :, 0] = 255
    return logits[0], logits[1], labels[0], labels[1]


# ---------------------------------------------------------------- losses
@pytest.mark.parametrize(("alpha_on", "gamma"), [("fp", 4 / 3), ("fn", 1.0)])
def test_terms_are_both_losses_of_both_maps(alpha_on: Any, gamma: float) -> None:
    drivable, lane, area, lines = scene()
    terms = step(
        RoadLaneOutput(drivable, lane), area, lines,
        tversky_alpha_on=alpha_on, tversky_gamma=gamma,
    )  # fmt: skip
    assert list(terms) == ["drivable_focal", "drivable_tversky", "lane_focal", "lane_tversky"]
    for kind, logits, labels, alpha, beta in (
        ("drivable", drivable, area, 0.7, 0.3),
        ("lane", lane, lines, 0.9, 0.1),
    ):
        weights = (alpha, beta) if alpha_on == "fp" else (beta, alpha)
        tversky = tversky_loss(
            logits, labels, gamma=gamma,
            false_positive_weight=weights[0], false_negative_weight=weights[1],
        )  # fmt: skip
        assert terms[f"{kind}_tversky"] == tversky
        assert terms[f"{kind}_focal"] == focal_loss(logits, labels)


def test_the_defaults_are_those_of_the_released_code() -> None:
    drivable, lane, area, lines = scene()
    output = RoadLaneOutput(drivable, lane)
    explicit = step(output, area, lines, tversky_alpha_on="fp", tversky_gamma=4 / 3)
    assert step(output, area, lines) == explicit


def test_void_padding_is_the_same_as_cutting_it_off() -> None:
    drivable, lane, area, lines = scene()
    padded = step(RoadLaneOutput(drivable, lane), area, lines)
    cut = step(RoadLaneOutput(drivable[:, :, 1:], lane[:, :, 1:]), area[:, 1:], lines[:, 1:])
    for name, value in padded.items():
        torch.testing.assert_close(value, cut[name])


def test_coarse_logits_are_brought_to_label_size() -> None:
    drivable, lane, _, _ = scene()
    labels = torch.randint(0, 2, (2, 16, 24))
    terms = step(RoadLaneOutput(drivable, lane), labels, labels)
    full = F.interpolate(lane, size=(16, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(terms["lane_focal"], focal_loss(full, labels))


@pytest.mark.parametrize("kind", ["drivable", "lane"])
def test_a_single_map_is_learnt_alone(kind: Any) -> None:
    drivable, lane, area, lines = scene()
    both = step(RoadLaneOutput(drivable, lane), area, lines)
    one = RoadLaneOutput(*(x if name == kind else None for name, x in
                           (("drivable", drivable), ("lane", lane))))  # fmt: skip
    terms = step(one, area, lines, tasks=kind)
    assert terms == {name: value for name, value in both.items() if name.startswith(kind)}
    with pytest.raises(ConfigError, match=r"gives .*, the task expects .*model\.tasks"):
        step(one, area, lines)
    task = RoadLaneTask((), tasks=kind)
    assert task.needs == (kind,)
    assert task.new_metric().kinds == (kind,)


def test_every_parameter_of_the_network_learns() -> None:
    model = twinmixing_nano().train()
    batch = Batch(
        torch.rand(2, 3, 64, 64), RoadLaneTarget(*torch.randint(0, 2, (2, 2, 64, 64))), ()
    )
    terms = RoadLaneTask(()).training_step(model, batch)
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_other_outputs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"returns Tensor.*RoadLaneOutput"):
        step(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4).long())


def test_class_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.class_weights"):
        RoadLaneTask((), [1.0, 2.0])


def test_options_survive_a_checkpoint() -> None:
    task = rebuild("road_lane", (), {"name": "road_lane", "tasks": "lane", "tversky_gamma": 1.0})
    assert isinstance(task, RoadLaneTask)
    assert (task.needs, task.gamma) == (("lane",), 1.0)


# ---------------------------------------------------------------- targets
def sample_of(**labels: Any) -> Sample:
    maps = {kind: np.array(label, np.uint8) for kind, label in labels.items()}
    return Sample(np.zeros((2, 2, 3), np.uint8), maps, path="a.png")


def test_targets_are_stacked_and_a_lacking_kind_is_void() -> None:
    both = sample_of(drivable=[[0, 1], [1, 255]], lane=[[1, 0], [0, 0]])
    target = RoadLaneTask(()).target([both, sample_of(lane=[[0, 0], [1, 1]])])
    assert target.drivable.dtype == target.lane.dtype == torch.int64
    assert target.drivable.tolist() == [[[0, 1], [1, 255]], [[255, 255], [255, 255]]]
    assert target.lane.tolist() == [[[1, 0], [0, 0]], [[0, 0], [1, 1]]]


def test_missing_and_wrong_labels_are_named() -> None:
    task = RoadLaneTask((), tasks="lane")
    with pytest.raises(DataError, match=r"a\.png: has no lane labels \(it has: drivable\)"):
        task.target([sample_of(drivable=[[0, 1], [0, 1]])])
    with pytest.raises(DataError, match=r"a\.png: lane label 7 is neither 0, 1 nor 255"):
        task.target([sample_of(lane=[[0, 7], [0, 1]])])


# ---------------------------------------------------------------- results
def one_hot(labels: Tensor) -> Tensor:
    """Return logits (1, 2, H, W) that choose these labels (H, W) of 0 and 1."""
    return F.one_hot(labels.long(), 2).permute(2, 0, 1)[None].float()


def test_a_letterboxed_image_gets_maps_at_its_own_size() -> None:
    fitted = LETTERBOX.fit(np.zeros((72, 128, 3), np.uint8), path="a.png")
    assert fitted.meta.offset == (14, 0)
    rows = torch.arange(64).view(-1, 1).expand(64, 64)
    inside = (rows >= 14) & (rows < 50)
    output = RoadLaneOutput(one_hot(inside), one_hot(~inside))
    result = RoadLaneTask(()).postprocess(output, [fitted.meta])[0]
    assert result.drivable is not None
    assert result.lane is not None
    assert result.drivable.shape == result.lane.shape == (72, 128)
    assert result.drivable.dtype == np.bool_
    assert result.drivable.all()
    assert not result.lane.any()
    assert result.source == "a.png"
    assert result.names == ("drivable", "lane")


def test_background_wins_a_tie_and_images_keep_their_order() -> None:
    logits = torch.zeros(2, 2, 4, 4)
    logits[1, 1, :, 2:] = 1e-3
    meta = [ImageMeta(name, (4, 4), (4, 4), (0, 0)) for name in ("a", "b")]
    first, second = RoadLaneTask(()).postprocess(RoadLaneOutput(logits, logits), meta)
    assert not first.lane.any()
    assert second.lane.tolist() == 4 * [[False, False, True, True]]
    single = RoadLaneTask((), tasks="lane").postprocess(RoadLaneOutput(None, logits), meta)
    assert single[1].drivable is None
    assert np.array_equal(single[1].lane, second.lane)


def test_truth_scores_one_at_the_size_of_the_input() -> None:
    preprocess = Preprocess(**{**vars(LETTERBOX), "score_at": "input"})
    sample = Synthetic(size=(72, 128), length=1)[0]
    fitted = preprocess.fit(sample.image)
    task = RoadLaneTask(())
    train = preprocess.fit_labels(sample.labels, fitted.meta)
    truth = [torch.from_numpy(np.array(train[kind])) for kind in ("drivable", "lane")]
    assert all((item[:14] == 255).all() and (item[50:] == 255).all() for item in truth)
    output = RoadLaneOutput(*(one_hot(item == 1) for item in truth))
    scored, meta = preprocess.scored(sample, fitted.meta)
    metric = task.new_metric()
    metric.update(task.postprocess(output, [meta])[0], task.target([scored]))
    scores = metric.compute()
    assert scores["drivable_miou"] == scores["lane_iou"] == scores["score"] == 1.0
    assert metric.matrices()["lane"][0].sum() == 36 * 64
