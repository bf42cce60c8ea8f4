"""Losses of mask classification: numbers worked out by hand, and slow plain versions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.losses import mask_classification
from rtseg.losses.mask_classification import (
    Labelled,
    class_binary_cross_entropy,
    class_cross_entropy,
    collect,
    mask_bce,
    mask_classification_losses,
    mask_dice,
    match_images,
    matching_cost,
    sample_valid,
)
from rtseg.structures import MaskOutput

HALF = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
CONSTANT = {
    "class": torch.tensor([[[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]]),
    "masks": torch.tensor([-9.0, 9.0, -9.0]),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------- terms by hand
def test_dice_of_four_points_is_worked_out_by_hand() -> None:
    # sum p t = 1, sum p = 2, sum t = 2: 1 - (2 + 1) / (4 + 1).
    assert mask_dice(torch.zeros(1, 4), HALF).item() == pytest.approx(0.4)
    assert mask_dice(60 * HALF - 30, HALF).item() == pytest.approx(0, abs=1e-6)
    assert mask_dice(torch.full((1, 4), -30.0), 0 * HALF).item() == pytest.approx(0, abs=1e-6)


def test_cross_entropy_of_masks_is_worked_out_by_hand() -> None:
    assert mask_bce(torch.zeros(1, 4), HALF).item() == pytest.approx(math.log(2))
    logits = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    expected = (2 * math.log(1 + math.exp(-1)) + 2 * math.log(1 + math.e)) / 4
    assert mask_bce(logits, HALF).item() == pytest.approx(expected, rel=1e-6)
    assert mask_bce(logits.repeat(3, 1), HALF.repeat(3, 1)).shape == (3,)


def test_class_loss_is_worked_out_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    loss = class_cross_entropy(logits, torch.tensor([[0, 1]]), torch.tensor([1.0, 0.1]))
    assert loss.item() == pytest.approx(0.178402, abs=1e-6)


def test_binary_class_loss_is_worked_out_by_hand() -> None:
    # Query 0 is class 0, query 1 no object; the last column is not used.
    logits = torch.tensor([[[0.0, 1.0, 50.0], [0.0, 0.0, -50.0]]])
    loss = class_binary_cross_entropy(
        logits, torch.tensor([[0, 2]]), torch.tensor([1.0, 3.0, 0.1]), torch.tensor(2.0)
    )
    log2 = math.log(2)
    expected = (log2 + 3 * math.log(1 + math.e) + log2 + 3 * log2) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_points_that_do_not_count_change_nothing() -> None:
    logits, targets = torch.randn(2, 6), torch.rand(2, 6).round()
    valid = torch.tensor([[1.0, 1, 1, 0, 0, 1]]).expand(2, 6)
    kept = valid[0].bool()
    for term in (mask_bce, mask_dice):
        torch.testing.assert_close(
            term(logits, targets, valid), term(logits[:, kept], targets[:, kept])
        )
    nothing = torch.zeros(2, 6)
    assert mask_bce(logits, targets, nothing).tolist() == [0, 0]


# ---------------------------------------------------------------- matching
def test_costs_of_two_queries_are_worked_out_by_hand() -> None:
    classes = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    masks = torch.stack([20 * HALF[0] - 10, torch.zeros(4)])
    cost = matching_cost(classes, torch.tensor([0]), masks, HALF)
    assert cost.shape == (2, 1)
    assert cost[:, 0].tolist() == pytest.approx([-1.7612, 5.2273], abs=1e-4)


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("dropped", [False, True])
def test_costs_equal_those_of_every_pair_on_its_own(kind: Any, dropped: bool) -> None:
    classes, labels = torch.randn(5, 4), torch.tensor([2, 0, 2])
    logits, targets = 3 * torch.randn(5, 9), torch.rand(3, 9)
    valid = torch.rand(9).round() if dropped else None
    cost = matching_cost(classes, labels, logits, targets, valid=valid, class_loss=kind)
    scores = classes.softmax(1) if kind == "ce" else classes.sigmoid()
    every = None if valid is None else valid[None]
    for q in range(5):
        for t in range(3):
            pair = (logits[q : q + 1], targets[t : t + 1], every)
            expected = 5 * mask_bce(*pair) + 5 * mask_dice(*pair) - 2 * scores[q, labels[t]]
            assert cost[q, t].item() == pytest.approx(expected.item(), abs=1e-4)


def flat(values: Tensor, size: tuple[int, int] = (4, 6)) -> Tensor:
    """Maps (B, N, h, w) that hold one value each."""
    return values[..., None, None].expand(*values.shape, *size).contiguous()


def test_every_image_is_matched_with_its_own_masks() -> None:
    full, empty = torch.ones(8, 12), torch.zeros(8, 12)
    labelled = collect(
        [torch.tensor([1, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([0])],
        [torch.stack([full, empty]).bool(), torch.zeros(0, 8, 12).bool(), empty[None].bool()],
    )
    output = MaskOutput(CONSTANT["class"].expand(3, 3, 3), flat(CONSTANT["masks"].expand(3, 3)))
    images, queries, numbers = match_images(output, labelled, points=32, class_loss="ce")
    assert images.tolist() == [0, 0, 2]
    assert queries.tolist() == [1, 0, 0]
    assert numbers.tolist() == [0, 1, 2]


def test_more_masks_than_queries_are_matched_as_far_as_they_go() -> None:
    masks = torch.rand(7, 8, 12) > 0.5
    labelled = collect([torch.arange(7) % 3], [masks])
    output = MaskOutput(torch.randn(1, 4, 4), torch.randn(1, 4, 4, 6))
    images, queries, numbers = match_images(output, labelled, points=32, class_loss="ce")
    assert len(images) == 4
    assert sorted(queries.tolist()) == [0, 1, 2, 3]
    terms = mask_classification_losses(output, labelled, weight=torch.ones(4), points=32)
    assert all(value.isfinite() for value in terms.values())
    assert numbers.tolist() == sorted(numbers.tolist())


def test_validity_of_a_point_is_that_of_its_pixel() -> None:
    valid = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    points = torch.tensor([[[0.1, 0.1], [0.49, 0.49], [0.51, 0.1], [0.0, 0.0], [1.0, 0.2]]])
    assert sample_valid(valid, points).tolist() == [[1, 1, 0, 1, 0]]


# ---------------------------------------------------------------- all together
def one_image(**options: Any) -> dict[str, Tensor]:
    """Three queries on constant maps, two labelled masks that are constant as well."""
    labelled = collect(
        [torch.tensor([1, 0])], [torch.stack([torch.ones(8, 12), torch.zeros(8, 12)]).bool()]
    )
    output = MaskOutput(CONSTANT["class"], flat(CONSTANT["masks"][None]), options.pop("aux", ()))
    return mask_classification_losses(
        output, labelled, **{"weight": torch.tensor([1, 1, 0.1]), "points": 32, **options}
    )


def inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw points away from the border, where constant maps are constant."""
    original = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *a, **k: 0.2 + 0.6 * original(*a, **k))


def test_loss_of_constant_maps_is_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    inside_only(monkeypatch)
    terms = one_image()
    # Every query is right with logit 9: one cross-entropy in all cases, weights cancel.
    assert terms["class"].item() == pytest.approx(2 * math.log(1 + 2 * math.exp(-9)), rel=1e-3)
    assert terms["mask"].item() == pytest.approx(5 * math.log(1 + math.exp(-9)), rel=1e-2)
    p = 1 / (1 + math.exp(-9))
    right = 1 - (2 * 32 * p + 1) / (32 * p + 32 + 1)
    empty = 1 - 1 / (32 * (1 - p) + 1)
    assert terms["dice"].item() == pytest.approx(5 * (right + empty) / 2, rel=1e-3)


def test_terms_of_all_predictions_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    inside_only(monkeypatch)
    single = one_image()
    same = MaskOutput(CONSTANT["class"], flat(CONSTANT["masks"][None]))
    three = one_image(aux=(same, same))
    without = one_image(aux=(same, same), deep_supervision=False)
    for name, value in single.items():
        assert three[name].item() == pytest.approx(3 * value.item(), rel=1e-4)
        assert without[name].item() == pytest.approx(value.item(), rel=1e-4)


def test_predictions_are_matched_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    inside_only(monkeypatch)
    turned = MaskOutput(CONSTANT["class"].flip(1), flat(CONSTANT["masks"].flip(0)[None]))
    single, both = one_image(), one_image(aux=(turned,))
    assert both["mask"].item() == pytest.approx(2 * single["mask"].item(), rel=1e-4)


def test_no_masks_at_all_leave_zero_terms_in_the_graph() -> None:
    labelled = collect(
        [torch.tensor([], dtype=torch.int64)] * 2, [torch.zeros(0, 8, 12).bool()] * 2
    )
    classes = torch.randn(2, 3, 4, requires_grad=True)
    masks = torch.randn(2, 3, 4, 6, requires_grad=True)
    terms = mask_classification_losses(
        MaskOutput(classes, masks), labelled, weight=torch.ones(4), points=16
    )
    assert terms["mask"].item() == terms["dice"].item() == 0
    expected = 2 * F.cross_entropy(classes.flatten(0, 1), torch.full((6,), 3))
    torch.testing.assert_close(terms["class"], expected)
    torch.stack(list(terms.values())).sum().backward()
    assert classes.grad is not None
    assert classes.grad.any()
    assert masks.grad is not None
    assert not masks.grad.any()


def test_number_of_masks_divides_and_processes_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = collect([torch.tensor([0])], [torch.ones(1, 8, 12).bool()])
    output = MaskOutput(torch.zeros(1, 2, 2), torch.zeros(1, 2, 4, 6))
    terms = mask_classification_losses(output, labelled, weight=torch.ones(2), points=16)
    assert terms["mask"].item() == pytest.approx(5 * math.log(2), rel=1e-4)
    # Another process has 13 masks more, and costs of 13 in all its sums.
    monkeypatch.setattr(mask_classification, "batch_sum", lambda values: values + 13)
    terms = mask_classification_losses(output, labelled, weight=torch.ones(2), points=16)
    assert terms["mask"].item() == pytest.approx(5 * (math.log(2) + 13) / 14, rel=1e-4)
    assert terms["class"].item() == pytest.approx(2 * (2 * math.log(2) + 13) / (2 + 13), rel=1e-4)


def test_gradients_reach_matched_masks_only() -> None:
    labelled = collect([torch.tensor([0])], [torch.ones(1, 8, 12).bool()])
    classes = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]], requires_grad=True)
    masks = flat(torch.tensor([[1.0, -1.0]])).requires_grad_()
    terms = mask_classification_losses(
        MaskOutput(classes, masks), labelled, weight=torch.ones(2), points=16
    )
    torch.stack(list(terms.values())).sum().backward()
    assert masks.grad is not None
    assert masks.grad[0, 0].any()
    assert not masks.grad[0, 1].any()
    assert classes.grad is not None
    assert classes.grad[0].any(dim=1).all()


def test_masks_at_higher_resolution_are_read_at_the_same_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside_only(monkeypatch)
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1
    labelled = collect([torch.tensor([0])], [left.bool()])
    logits = torch.full((1, 1, 8, 12), -20.0)
    logits[..., :6] = 20
    output = MaskOutput(torch.zeros(1, 1, 2), logits)
    right = mask_classification_losses(output, labelled, weight=torch.ones(2), points=256)
    mirrored = MaskOutput(torch.zeros(1, 1, 2), logits.flip(3))
    wrong = mask_classification_losses(mirrored, labelled, weight=torch.ones(2), points=256)
    assert right["mask"] < 5 < wrong["mask"]


def test_void_points_are_negatives_unless_left_out() -> None:
    half = torch.zeros(1, 8, 12)
    half[..., :6] = 1
    logits = torch.full((1, 1, 4, 6), 9.0)  # covers everything, right of the middle is void
    output = MaskOutput(torch.zeros(1, 1, 2), logits)
    valid = half.bool()
    for given, low in ((valid, True), (None, False)):
        labelled = collect([torch.tensor([0])], [half.bool()], valid=given)
        terms = mask_classification_losses(output, labelled, weight=torch.ones(2), points=64)
        assert (terms["mask"] < 10) == low  # 22 where half of the points are wrong by 9


def test_binary_class_loss_is_chosen_by_name() -> None:
    labelled = collect([torch.tensor([0])], [torch.ones(1, 8, 12).bool()])
    output = MaskOutput(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 6))
    terms = mask_classification_losses(
        output, labelled, weight=torch.ones(3), points=16, class_loss="bce"
    )
    assert terms["class"].item() == pytest.approx(2 * 4 * math.log(2), rel=1e-5)


def test_terms_and_matching_are_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    def match(cost: Tensor) -> Any:
        found.append(torch.is_autocast_enabled("cpu"))
        return original(cost)

    original = mask_classification.match
    monkeypatch.setattr(mask_classification, "match", match)
    masks = torch.rand(2, 8, 12) > 0.5
    labelled = collect([torch.tensor([0, 1])], [masks])
    classes, logits = torch.randn(1, 3, 3), torch.randn(1, 3, 4, 6)
    item = MaskOutput(classes.bfloat16(), logits.bfloat16())
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = mask_classification_losses(item, labelled, weight=torch.ones(3), points=16)
    torch.manual_seed(1)
    same = MaskOutput(item.class_logits.float(), item.mask_logits.float())
    high = mask_classification_losses(same, labelled, weight=torch.ones(3), points=16)
    for name, value in high.items():
        assert low[name].dtype == torch.float32
        assert low[name].item() == value.item()
    assert found == [False, False]


def test_masks_are_put_behind_each_other() -> None:
    labelled = collect(
        [torch.tensor([3]), torch.tensor([1, 2])],
        [torch.ones(1, 2, 3).bool(), torch.zeros(2, 2, 3).bool()],
        valid=torch.ones(2, 2, 3).bool(),
    )
    assert isinstance(labelled, Labelled)
    assert labelled.masks.shape == (3, 1, 2, 3)
    assert labelled.masks.dtype == torch.float32
    assert labelled.masks.flatten(1).mean(1).tolist() == [1, 0, 0]
    assert labelled.valid is not None
    assert labelled.valid.shape == (2, 1, 2, 3)
