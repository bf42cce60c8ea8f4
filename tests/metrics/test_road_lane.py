"""Scores of drivable area and lane lines against counts worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtseg.errors import DataError
from rtseg.metrics.road_lane import RoadLaneScores
from rtseg.structures import RoadLaneResult, RoadLaneTarget

Counts = tuple[int, int, int, int]


def maps(counts: Counts) -> tuple[np.ndarray, torch.Tensor]:
    """Return a prediction (1, N) and labels (1, 1, N) with this many TP, FP, FN, TN."""
    found = np.repeat([True, True, False, False], counts)
    truth = np.repeat([1, 0, 1, 0], counts)
    return found[None], torch.from_numpy(truth)[None, None]


def add(metric: RoadLaneScores, lane: Counts, drivable: Counts | None = None) -> None:
    (lane_mask, lane_truth), (area, area_truth) = maps(lane), maps(drivable or lane)
    result = RoadLaneResult(area, lane_mask, ("drivable", "lane"), ((0, 0, 0), (9, 9, 9)))
    metric.update(result, RoadLaneTarget(area_truth, lane_truth))


def scores_of(images: list[Counts], **options: Any) -> dict[str, float]:
    metric = RoadLaneScores(**options)
    for counts in images:
        add(metric, counts)
    return metric.compute()


def test_two_batches_are_worked_out_by_hand() -> None:
    # 16 images each that add up to (10, 10, 0, 80) and (1, 0, 9, 90)
    first = [(10, 10, 0, 80)] + 15 * [(0, 0, 0, 0)]
    second = [(1, 0, 9, 90)] + 15 * [(0, 0, 0, 0)]
    scores = scores_of(first + second)
    assert scores["lane_iou"] == pytest.approx(11 / 30)
    assert scores["lane_iou"] == pytest.approx(0.3667, abs=5e-5)
    assert scores["lane_iou_batch16"] == pytest.approx((0.5 + 0.1) / 2)
    assert scores["lane_accuracy"] == pytest.approx(11 / 20)
    assert scores["lane_accuracy_batch16"] == pytest.approx((1 + 0.1) / 2)
    assert scores["lane_balanced_accuracy"] == pytest.approx((11 / 20 + 170 / 180) / 2)
    balanced = ((1 + 80 / 90) / 2 + (0.1 + 1) / 2) / 2
    assert scores["lane_balanced_accuracy_batch16"] == pytest.approx(balanced)
    assert scores["drivable_miou"] == pytest.approx((11 / 30 + 170 / 189) / 2)
    miou = ((10 / 20 + 80 / 90) / 2 + (1 / 10 + 90 / 99) / 2) / 2
    assert scores["drivable_miou_batch16"] == pytest.approx(miou)
    total = 0.2 * (11 / 30 + 170 / 189) / 2 + 0.8 * 11 / 30
    assert scores["score"] == pytest.approx(total)


def test_the_last_batch_counts_by_its_number_of_images() -> None:
    scores = scores_of(16 * [(1, 0, 0, 1)] + 4 * [(0, 1, 1, 1)])
    assert scores["lane_iou_batch16"] == pytest.approx(16 / 20)
    assert scores["lane_iou"] == pytest.approx(16 / 24)


def test_each_kind_has_its_own_counts() -> None:
    metric = RoadLaneScores()
    add(metric, (1, 1, 2, 6), (4, 1, 0, 5))
    scores = metric.compute()
    assert scores["lane_iou"] == pytest.approx(1 / 4)
    assert scores["lane_accuracy"] == pytest.approx(1 / 3)
    assert scores["drivable_miou"] == pytest.approx((4 / 5 + 5 / 6) / 2)
    matrices = metric.matrices()
    assert matrices["drivable"][0].tolist() == [[5, 1], [0, 4]]
    assert matrices["drivable"][1] == ["background", "drivable"]
    assert matrices["lane"][0].tolist() == [[6, 1], [2, 1]]
    area, lane = metric.per_class()
    assert area == {
        "name": "drivable", "iou": 4 / 5, "background_iou": 5 / 6, "accuracy": 1.0,
        "balanced_accuracy": pytest.approx((1 + 5 / 6) / 2), "pixels": 4,
    }  # fmt: skip
    assert lane["name"] == "lane"
    assert lane["pixels"] == 3


def test_accumulated_scores_do_not_depend_on_the_order_and_batch_scores_do() -> None:
    rng = np.random.default_rng(0)
    images = [tuple(int(n) for n in rng.integers(0, 9, 4)) for _ in range(40)]
    one, other = scores_of(images), scores_of(sorted(images))
    for name, value in one.items():
        if name.endswith("_batch16"):
            assert other[name] != pytest.approx(value, abs=1e-6), name
        else:
            assert other[name] == value, name


@pytest.mark.parametrize(
    ("counts", "iou", "accuracy", "balanced", "miou"),
    [
        ((0, 0, 5, 5), 0.0, 0.0, 0.5, 0.25),  # nothing predicted
        ((0, 5, 0, 5), 0.0, 0.0, 0.25, 0.25),  # nothing there
        ((0, 0, 0, 9), 0.0, 0.0, 0.5, 1.0),  # nothing predicted, nothing there
        ((9, 0, 0, 0), 1.0, 1.0, 0.5, 1.0),  # no background
        ((0, 0, 0, 0), 0.0, 0.0, 0.0, 0.0),  # no labelled pixel
    ],
)
def test_empty_maps_have_scores_that_are_numbers(
    counts: Counts, iou: float, accuracy: float, balanced: float, miou: float
) -> None:
    scores = scores_of([counts])
    assert scores["lane_iou"] == scores["lane_iou_batch16"] == iou
    assert scores["lane_accuracy"] == accuracy
    assert scores["lane_balanced_accuracy"] == balanced
    assert scores["drivable_miou"] == pytest.approx(miou)


def test_absent_class_counts_as_zero_in_the_published_average_only() -> None:
    scores = scores_of([(0, 0, 0, 9)])
    assert scores["drivable_miou"] == 1.0
    assert scores["drivable_miou_batch16"] == 0.5


def test_per_class_says_none_where_there_is_nothing_to_divide_by() -> None:
    metric = RoadLaneScores()
    add(metric, (0, 0, 0, 9))
    row = metric.per_class()[1]
    assert row == {
        "name": "lane", "iou": None, "background_iou": 1.0, "accuracy": None,
        "balanced_accuracy": None, "pixels": 0,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_an_empty_metric_has_every_score() -> None:
    assert set(scores_of([])) == set(scores_of([(1, 1, 1, 1)]))
    assert set(scores_of([]).values()) == {0.0}
    assert [row["iou"] for row in RoadLaneScores().per_class()] == [None, None]


def test_a_single_kind_is_scored_alone() -> None:
    lane = scores_of([(1, 2, 3, 4)], kinds=("lane",))
    both = scores_of([(1, 2, 3, 4)])
    assert lane == {name: value for name, value in both.items() if name.startswith("lane")}
    drivable = scores_of([(1, 2, 3, 4)], kinds=("drivable",))
    assert set(drivable) == {"drivable_miou", "drivable_miou_batch16"}
    result = RoadLaneResult(None, maps((1, 1, 1, 1))[0], ("drivable", "lane"), ((0, 0, 0),) * 2)
    target = RoadLaneTarget(*2 * [maps((1, 1, 1, 1))[1]])
    RoadLaneScores(("lane",)).update(result, target)
    with pytest.raises(ValueError, match="no map of kind 'drivable'"):
        RoadLaneScores().update(result, target)


def test_void_pixels_do_not_count_and_other_labels_are_refused() -> None:
    mask, truth = maps((2, 2, 2, 2))
    truth[..., ::2] = 255
    result = RoadLaneResult(
        mask, mask, ("drivable", "lane"), ((0, 0, 0), (9, 9, 9)), source="a.png"
    )
    metric = RoadLaneScores()
    metric.update(result, RoadLaneTarget(truth, truth))
    assert metric.matrices()["lane"][0].tolist() == [[1, 1], [1, 1]]
    truth[..., 0] = 2
    with pytest.raises(DataError, match=r"a\.png"):
        metric.update(result, RoadLaneTarget(truth, truth))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_forgets_and_numbering_begins_again() -> None:
    metric = RoadLaneScores()
    images = [(1, 2, 3, 4), (5, 0, 0, 1)]
    for _ in range(2):
        for counts in images:
            add(metric, counts)
        assert metric.compute() == scores_of(images)
        metric.reset()
        assert set(metric.compute().values()) == {0.0}


# ---------------------------------------------------------------- from the definition
@st.composite
def images(draw: Any) -> Any:
    """A prediction and labels of both kinds; often without void, lanes or anything at all."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=4))
    labels = draw(st.sampled_from([[0, 1, 255], [0, 1], [0], [1], [255], [0, 255]]))
    return {
        kind: (
            draw(hnp.arrays(np.bool_, shape)),
            draw(hnp.arrays(np.int64, shape, elements=st.sampled_from(labels))),
        )
        for kind in ("drivable", "lane")
    }


def slow_scores(seen: list[Any]) -> dict[str, float]:
    """Count pixel by pixel over the whole set."""

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    found: dict[str, Any] = {}
    for kind in ("drivable", "lane"):
        counts = {(guess, truth): 0 for guess in (0, 1) for truth in (0, 1)}
        for image in seen:
            guesses, truths = image[kind]
            for place in np.ndindex(truths.shape):
                if truths[place] != 255:
                    counts[int(guesses[place]), int(truths[place])] += 1
        tp, fp, fn, tn = counts[1, 1], counts[1, 0], counts[0, 1], counts[0, 0]
        ious = [share(tp, tp + fp + fn), share(tn, tn + fp + fn)]
        recalls = [share(tp, tp + fn), share(tn, tn + fp)]
        if kind == "drivable":
            known = [value for value in ious if value is not None]
            found["drivable_miou"] = sum(known) / len(known) if known else 0.0
        else:
            found["lane_iou"] = ious[0] or 0.0
            found["lane_accuracy"] = recalls[0] or 0.0
            found["lane_balanced_accuracy"] = sum(value or 0.0 for value in recalls) / 2
    return found


@given(st.lists(images(), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_scores_of_a_set_equal_counting_pixel_by_pixel(seen: list[Any]) -> None:
    metric = RoadLaneScores()
    for image in seen:
        guesses = [image[kind][0] for kind in ("drivable", "lane")]
        labels = [torch.from_numpy(image[kind][1])[None] for kind in ("drivable", "lane")]
        result = RoadLaneResult(*guesses, ("drivable", "lane"), ((0, 0, 0), (9, 9, 9)))
        metric.update(result, RoadLaneTarget(*labels))
    scores = metric.compute()
    for name, value in slow_scores(seen).items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


# ---------------------------------------------------------------- processes
IMAGES = [(5, 1, 0, 9), (0, 0, 7, 9), (3, 3, 3, 3), (0, 4, 1, 0), (9, 0, 0, 0)] * 8
NUMBERS = (1, 40)


def _score_shares(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    reports = []
    for number in NUMBERS:
        metric = RoadLaneScores()
        for counts in IMAGES[:number][rank::world]:
            add(metric, counts)
        reports.append((metric.compute(), metric.per_class()))
    torch.save(reports, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_report_the_scores_of_one_even_if_one_of_them_has_no_image(
    tmp_path: Path,
) -> None:
    world = 3
    mp.spawn(_score_shares, args=(world, str(tmp_path)), nprocs=world)
    for rank in range(world):
        reports = torch.load(tmp_path / f"{rank}.pt")
        for number, (scores, rows) in zip(NUMBERS, reports, strict=True):
            joint = RoadLaneScores()
            for counts in IMAGES[:number]:
                add(joint, counts)
            assert scores == joint.compute()
            assert rows == joint.per_class()
