"""What cannot be distilled is refused before the first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.structures import Batch, MaskOutput, Sample
from rtseg.tasks.semantic_masks import SemanticMasksTask
from rtseg.training.distill import DistilledTask
from rtseg.training.distill_options import DistillOptions, Pair
from training.pupils import PAIRS, lesson, pupil, teacher
from training.toy import CLASSES, PREPROCESS


class Masks(nn.Module):
    """A student that classifies masks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.unused = nn.Identity()
        self.pooled = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> MaskOutput:
        maps = self.body(images)
        self.pooled(maps).flatten()
        return MaskOutput(maps.mean((2, 3))[:, None].expand(-1, 4, -1), maps)


def masks(**options: Any) -> DistilledTask:
    return DistilledTask(
        SemanticMasksTask(CLASSES, points=16), Masks(), teacher(), preprocess=PREPROCESS,
        options=DistillOptions(**{"pairs": (Pair("body", "deep"),), **options}),
    )  # fmt: skip


def test_mask_classification_learns_from_features_but_not_from_scores() -> None:
    student = Masks()
    task = DistilledTask(
        SemanticMasksTask(CLASSES, points=16), student, teacher(), preprocess=PREPROCESS,
        options=DistillOptions("cwd", (Pair("body", "deep"),)),
    )  # fmt: skip
    labels = np.zeros((12, 16), np.uint8)
    sample = Sample(np.zeros((12, 16, 3), np.float32), {"semantic": labels})
    terms = task.training_step(student, Batch(torch.randn(1, 3, 12, 16), task.target([sample]), ()))
    assert list(terms) == ["class", "mask", "dice", "cwd"]
    assert terms["cwd"].item() > 0
    for mode in ("ofa", "both"):
        with pytest.raises(ConfigError, match="MaskOutput, which has no class scores") as caught:
            masks(mode=mode)
        assert caught.value.where == "distill.mode"


def test_a_teacher_of_masks_has_no_scores_either() -> None:
    wise = teacher(Masks())
    lesson(pupil(), wise, mode="cwd", pairs=(Pair("norm", "body"),))
    with pytest.raises(ConfigError, match="the teacher returns MaskOutput") as caught:
        lesson(pupil(), wise, mode="ofa")
    assert caught.value.where == "distill.teacher"


@pytest.mark.parametrize(
    ("pair", "place", "says"),
    [
        (Pair("nrm", "deep"), "0.student", "no module 'nrm'; did you mean one of: norm"),
        (Pair("norm", "stage3"), "0.teacher", "the teacher has no module 'stage3'"),
        (Pair("", "deep"), "0.student", "'' of the student returns no map"),
        (Pair("norm", ""), "0.teacher", "'' of the teacher returns no map"),
    ],
)
def test_pairs_that_name_no_map_are_refused(pair: Pair, place: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        lesson(pupil(), pairs=(pair,))
    assert caught.value.where == f"distill.pairs.{place}"


def test_a_module_that_is_not_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="'unused' of the student returns no map") as caught:
        masks(mode="cwd", pairs=(Pair("body", "deep"), Pair("unused", "deep")))
    assert caught.value.where == "distill.pairs.1.student"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"cwd_temperature": 0.0}, "cwd_temperature"), ({"ofa_weight": -1.0}, "ofa_weight"),
        ({"ofa_temperature": 0.0}, "ofa_temperature"), ({"theta": 0.0}, "theta"),
        ({"pairs": (Pair("a", "b"), Pair("a", "b", weight=0.0))}, "pairs.1.weight"),
        ({"mode": "cwd", "pairs": ()}, "pairs"), ({"mode": "both", "pairs": ()}, "pairs"),
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistillOptions(**{"pairs": PAIRS, **options})
    assert caught.value.where == f"distill.{where}"
    assert caught.value.fix


def test_scores_alone_need_no_pairs() -> None:
    assert list(lesson(pupil(), mode="ofa", pairs=()).parameters()) == []
    assert list(lesson(pupil(), mode="ofa").parameters()) == []
