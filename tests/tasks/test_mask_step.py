"""Targets from labels, and one training step on masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.losses.mask_classification import collect, mask_classification_losses
from rtseg.models.bisenetformer import bisenetformer_stdc1
from rtseg.structures import Batch, MaskOutput, MaskTarget, Sample, Segment, SemanticOutput
from rtseg.tasks.mask_step import MaskStep, class_probabilities, mask_target


class Fixed(nn.Module):
    """Return given predictions whatever the image."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Any:
        return self.output


def semantic(rows: list[list[int]]) -> Sample:
    return Sample(np.zeros((2, 3, 3), np.uint8), {"semantic": np.array(rows, np.uint8)}, path="a")


def panoptic(rows: list[list[int]], *segments: Segment) -> Sample:
    labels = {"panoptic": np.array(rows, np.int32)}
    return Sample(np.zeros((2, 3, 3), np.uint8), labels, segments, path="b")


def prediction(batch: int = 1, queries: int = 3, num_classes: int = 2) -> MaskOutput:
    return MaskOutput(
        torch.randn(batch, queries, num_classes + 1), torch.randn(batch, queries, 4, 6)
    )


def target_of(masks: Tensor, labels: list[int], crowd: list[bool], ignore: Tensor) -> MaskTarget:
    return MaskTarget((torch.tensor(labels),), (masks,), (torch.tensor(crowd),), ignore[None])


# ---------------------------------------------------------------- targets
def test_semantic_labels_give_one_mask_for_each_class_that_occurs() -> None:
    samples = [semantic([[4, 0, 255], [4, 4, 0]]), semantic([[255] * 3] * 2)]
    target = mask_target(samples, kind="semantic", num_classes=5)
    assert target.labels[0].tolist() == [0, 4]
    assert target.labels[0].dtype == torch.int64
    assert target.masks[0].dtype == torch.bool
    assert target.masks[0].tolist() == [
        [[False, True, False], [False, False, True]],
        [[True, False, False], [True, True, False]],
    ]
    assert target.crowd[0].tolist() == [False, False]
    assert target.ignore[0].tolist() == [[False, False, True], [False, False, False]]
    assert target.labels[1].shape == (0,)
    assert target.masks[1].shape == (0, 2, 3)
    assert target.crowd[1].dtype == target.ignore.dtype == torch.bool
    assert target.ignore[1].all()


def test_panoptic_labels_give_one_mask_for_each_segment_in_its_order() -> None:
    sample = panoptic(
        [[70_000, 0, 7], [70_000, 9, 7]],
        Segment(7, 1),
        Segment(70_000, 0),
        Segment(8, 1),
        Segment(9, 1, crowd=True),
    )
    target = mask_target([sample], kind="panoptic", num_classes=2)
    assert target.labels[0].tolist() == [1, 0, 1]
    assert target.crowd[0].tolist() == [False, False, True]
    assert target.masks[0].long().sum(dim=(1, 2)).tolist() == [2, 2, 1]
    assert target.masks[0][1].tolist() == [[True, False, False], [True, False, False]]
    assert target.ignore[0].tolist() == [[False, True, False], [False, False, False]]


def test_segments_without_pixels_are_kept_only_on_request() -> None:
    sample = panoptic([[1, 1, 1], [0, 0, 0]], Segment(1, 0), Segment(2, 1))
    dropped = mask_target([sample], kind="panoptic", num_classes=2)
    kept = mask_target([sample], kind="panoptic", num_classes=2, keep_empty=True)
    assert dropped.labels[0].tolist() == [0]
    assert kept.labels[0].tolist() == [0, 1]
    assert not kept.masks[0][1].any()
    none = mask_target([panoptic([[0, 0, 0]] * 2)], kind="panoptic", num_classes=2)
    assert none.masks[0].shape == (0, 2, 3)


@pytest.mark.parametrize("kind", ["semantic", "panoptic"])
def test_wrong_labels_are_named(kind: Any) -> None:
    other = (
        panoptic([[1] * 3] * 2, Segment(1, 5)) if kind == "semantic" else semantic([[5] * 3] * 2)
    )
    with pytest.raises(DataError, match=f"has no {kind} labels"):
        mask_target([other], kind=kind, num_classes=5)
    wrong = (
        semantic([[5] * 3] * 2) if kind == "semantic" else panoptic([[1] * 3] * 2, Segment(1, 5))
    )
    with pytest.raises(DataError, match="class 5 is none of the 5 classes"):
        mask_target([wrong], kind=kind, num_classes=5)


# ---------------------------------------------------------------- training
def test_step_returns_the_weighted_losses_without_crowds() -> None:
    torch.manual_seed(0)
    output = prediction()
    masks = torch.rand(3, 8, 12) > 0.5
    ignore = torch.rand(8, 12) > 0.7
    target = target_of(masks, [1, 0, 1], [False, True, False], ignore)
    batch = Batch(torch.zeros(1, 3, 8, 12), target, ())
    for void in (False, True):
        torch.manual_seed(1)
        terms = MaskStep(2, [1.0, 3.0], points=64, ignore_void=void)(Fixed(output), batch)
        torch.manual_seed(1)
        labelled = collect(
            [torch.tensor([1, 1])], [masks[[0, 2]]], valid=~ignore[None] if void else None
        )
        expected = mask_classification_losses(
            output, labelled, weight=torch.tensor([1.0, 3.0, 0.1]), points=64
        )
        assert list(terms) == ["class", "mask", "dice"]
        for name, value in expected.items():
            assert terms[name].item() == value.item()


def test_options_reach_the_losses() -> None:
    torch.manual_seed(0)
    output = prediction()._replace(aux=(prediction(),))
    target = target_of(torch.ones(1, 8, 12).bool(), [0], [False], torch.zeros(8, 12).bool())
    batch = Batch(torch.zeros(1, 3, 8, 12), target, ())

    def value(**options: Any) -> float:
        torch.manual_seed(1)
        return MaskStep(2, points=64, **options)(Fixed(output), batch)["class"].item()

    usual = value()
    assert value(deep_supervision=False) < usual
    assert value(class_loss="bce") != usual


def test_what_does_not_fit_is_refused() -> None:
    target = target_of(torch.ones(1, 8, 12).bool(), [0], [False], torch.zeros(8, 12).bool())
    batch = Batch(torch.zeros(1, 3, 8, 12), target, ())
    with pytest.raises(ConfigError, match="returns SemanticOutput"):
        MaskStep(2)(Fixed(SemanticOutput(torch.zeros(1, 2, 4, 4))), batch)
    with pytest.raises(ConfigError, match="3 class outputs for 3 classes"):
        MaskStep(3)(Fixed(prediction()), batch)
    with pytest.raises(ConfigError, match="2 weights for 3 classes"):
        MaskStep(3, [1.0, 2.0])
    with pytest.raises(ConfigError, match=r"task\.points: 0 is too small"):
        MaskStep(3, points=0)


def test_one_image_in_training_is_explained() -> None:
    model = bisenetformer_stdc1(2, base_width=8, queries=4, feature_dim=16, ffn_dim=16)
    target = target_of(torch.ones(1, 32, 32).bool(), [0], [False], torch.zeros(32, 32).bool())
    batch = Batch(torch.randn(1, 3, 32, 32), target, ())
    with pytest.raises(ConfigError, match=r"train\.batch_size.*2 images or more"):
        MaskStep(2, points=16)(model.train(), batch)
    terms = MaskStep(2, points=16)(model.eval(), batch)
    assert all(term.isfinite() for term in terms.values())

    class Broken(nn.Module):
        def forward(self, _: Tensor) -> Any:
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        MaskStep(2)(Broken(), batch)


def test_probabilities_leave_no_object_out() -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0], [20.0, 0.0, 20.0]]])
    shares = class_probabilities(logits, class_loss="ce")
    assert shares.shape == (1, 2, 2)
    torch.testing.assert_close(shares[0], torch.tensor([[1 / 3, 1 / 3], [0.5, 0.0]]))
    sigmoids = class_probabilities(logits.half(), class_loss="bce")
    torch.testing.assert_close(sigmoids[0], torch.tensor([[0.5, 0.5], [1.0, 0.5]]))


@pytest.mark.long
def test_a_compiled_step_returns_what_the_plain_one_returns() -> None:
    torch.manual_seed(0)
    model = bisenetformer_stdc1(
        2, base_width=8, queries=4, feature_dim=16, ffn_dim=16, decoder_layers=2
    ).train()
    step = MaskStep(2, points=16)

    def run(images: Tensor, target: MaskTarget) -> dict[str, Tensor]:
        return step(model, Batch(images, target, ()))

    compiled = torch.compile(run, backend="eager", dynamic=False)
    for count in (1, 3):
        masks, labels = torch.rand(2, count, 32, 32) > 0.5, torch.randint(0, 2, (2, count))
        crowd = (torch.zeros(count, dtype=torch.bool),) * 2
        ignore = torch.zeros(2, 32, 32, dtype=torch.bool)
        target = MaskTarget(tuple(labels), tuple(masks), crowd, ignore)
        images = torch.randn(2, 3, 32, 32)
        values = []
        for function in (run, compiled):
            torch.manual_seed(1)
            values.append({name: term.item() for name, term in function(images, target).items()})
        assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.slow
def test_forty_steps_learn_colored_halves() -> None:
    torch.manual_seed(0)
    model = bisenetformer_stdc1(
        2, base_width=8, queries=6, feature_dim=32, ffn_dim=64, decoder_layers=2
    ).train()
    step = MaskStep(2, points=256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        split = int(torch.randint(24, 72, ()))
        left = torch.zeros(64, 96, dtype=torch.bool)
        left[:, :split] = True
        images = torch.where(left, 1.0, -1.0).expand(2, 3, 64, 96) + 0.1 * torch.randn(2, 3, 64, 96)
        target = MaskTarget(
            (torch.tensor([0, 1]),) * 2,
            (torch.stack([left, ~left]),) * 2,
            (torch.zeros(2, dtype=torch.bool),) * 2,
            torch.zeros(2, 64, 96, dtype=torch.bool),
        )
        loss = torch.stack(list(step(model, Batch(images, target, ())).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] / 2
