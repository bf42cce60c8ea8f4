"""Average precision of masks: hand cases, a slow reference, processes."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.errors import DataError, MissingError
from rtseg.metrics.instance import InstancePrecision
from rtseg.structures import ClassInfo, InstanceResult, MaskTarget

SKY, CAR, MAN = 0, 1, 2
CLASSES = (
    ClassInfo("sky", (1, 2, 3)),
    ClassInfo("car", (4, 5, 6), thing=True),
    ClassInfo("man", (7, 8, 9), thing=True),
)
WIDTH = 24
Object = tuple[int, int, int, Any]
"""Class, first column, end column, and a score or whether it is a crowd."""


def strips(objects: list[Object]) -> Any:
    masks = np.zeros((len(objects), 2, WIDTH), np.bool_)
    for mask, (_, first, end, _) in zip(masks, objects, strict=True):
        mask[:, first:end] = True
    return masks


def result_of(*objects: Object) -> InstanceResult:
    ordered = sorted(objects, key=lambda item: -item[3])
    return InstanceResult(
        strips(ordered),
        np.array([item[0] for item in ordered], np.int64),
        np.array([item[3] for item in ordered], np.float32),
        tuple(item.name for item in CLASSES),
        tuple(item.color for item in CLASSES),
        source="a/b.png",
    )


def target_of(*objects: Object) -> MaskTarget:
    labels = torch.tensor([item[0] for item in objects], dtype=torch.int64)
    crowd = torch.tensor([item[3] for item in objects], dtype=torch.bool)
    nothing = torch.zeros(1, 2, WIDTH, dtype=torch.bool)
    return MaskTarget((labels,), (torch.from_numpy(strips(list(objects))),), (crowd,), nothing)


def metric_of(*seen: tuple[InstanceResult, MaskTarget]) -> InstancePrecision:
    metric = InstancePrecision(CLASSES)
    for result, target in seen:
        metric.update(result, target)
    return metric


def scores_of(*seen: tuple[InstanceResult, MaskTarget]) -> list[float]:
    return list(metric_of(*seen).compute().values())


# ---------------------------------------------------------------- hand cases
def test_a_perfect_prediction_scores_one() -> None:
    found = result_of((CAR, 0, 4, 0.9), (CAR, 6, 9, 0.8), (MAN, 5, 6, 0.3))
    truth = target_of((CAR, 0, 4, False), (CAR, 6, 9, False), (MAN, 5, 6, False))
    metric = metric_of((found, truth))
    all_one = pytest.approx({"ap": 1.0, "ap50": 1.0, "ap75": 1.0})
    assert metric.compute() == all_one
    rows = metric.per_class()
    assert [row.pop("name") for row in rows] == ["car", "man"]
    assert rows == [all_one, all_one]
    assert metric.matrices() == {}


def test_an_overlap_of_8_in_11_counts_at_half_of_the_thresholds() -> None:
    seen = (result_of((CAR, 0, 8, 0.9)), target_of((CAR, 0, 11, False)))
    assert scores_of(seen) == pytest.approx([0.5, 1.0, 0.0])  # 0.727: 0.50 to 0.70


def test_an_overlap_of_8_in_10_counts_at_three_quarters() -> None:
    seen = (result_of((CAR, 1, 9, 0.9)), target_of((CAR, 0, 10, False)))
    assert scores_of(seen)[1:] == pytest.approx([1.0, 1.0])


def test_a_wrong_object_with_a_higher_score_halves_the_precision() -> None:
    truth = target_of((CAR, 0, 4, False))
    assert scores_of((result_of((CAR, 8, 12, 0.9), (CAR, 0, 4, 0.5)), truth))[0] == pytest.approx(
        0.5
    )
    assert scores_of((result_of((CAR, 8, 12, 0.4), (CAR, 0, 4, 0.5)), truth))[0] == pytest.approx(
        1.0
    )


def test_a_missed_object_cuts_the_recall() -> None:
    seen = (result_of((CAR, 0, 4, 0.9)), target_of((CAR, 0, 4, False), (CAR, 8, 12, False)))
    assert scores_of(seen) == pytest.approx([51 / 101] * 3)  # recalls 0.00 to 0.50


def test_a_second_object_on_the_same_truth_is_wrong() -> None:
    truth = target_of((CAR, 0, 4, False), (CAR, 8, 12, False))
    twice = result_of((CAR, 0, 4, 0.9), (CAR, 0, 4, 0.8), (CAR, 8, 12, 0.7))
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert scores_of((twice, truth))[0] == pytest.approx(expected)


def test_crowds_are_not_missed_and_objects_in_them_are_not_wrong() -> None:
    truth = target_of((CAR, 0, 4, False), (CAR, 10, 20, True))
    assert scores_of((result_of((CAR, 11, 13, 0.9), (CAR, 0, 4, 0.5)), truth))[0] == pytest.approx(
        1.0
    )
    assert scores_of((result_of((CAR, 4, 10, 0.9), (CAR, 0, 4, 0.5)), truth))[0] == pytest.approx(
        0.5
    )


def test_classes_without_truth_and_stuff_do_not_count() -> None:
    found = result_of((CAR, 0, 4, 0.9), (MAN, 0, 4, 0.95), (SKY, 8, 20, 0.99))
    metric = metric_of((found, target_of((CAR, 0, 4, False), (SKY, 0, 2, False))))
    assert metric.compute()["ap"] == pytest.approx(1.0)
    car, man = metric.per_class()
    assert (car["ap"], man["ap"]) == (pytest.approx(1.0), None)
    assert [row["name"] for row in metric.per_class()] == ["car", "man"]


def test_the_mean_is_over_classes() -> None:
    found = result_of((CAR, 0, 4, 0.9), (CAR, 5, 9, 0.8))
    truth = target_of((CAR, 0, 4, False), (CAR, 5, 9, False), (MAN, 10, 12, False))
    metric = metric_of((found, truth))
    assert metric.compute()["ap50"] == pytest.approx(0.5)
    assert [row["ap50"] for row in metric.per_class()] == pytest.approx([1.0, 0.0])


def test_scores_are_compared_over_all_images() -> None:
    empty, full = target_of(), target_of((CAR, 0, 4, False))
    low, high = result_of((CAR, 0, 4, 0.5)), result_of((CAR, 0, 4, 0.9))
    assert scores_of((high, empty), (low, full))[0] == pytest.approx(0.5)
    assert scores_of((low, empty), (high, full))[0] == pytest.approx(1.0)
    assert scores_of((high, full), (low, empty))[0] == pytest.approx(1.0)


def test_no_more_than_100_objects_of_an_image_count() -> None:
    wrong = [(CAR, 8, 12, 0.9)] * 99
    truth = target_of((CAR, 0, 4, False))
    assert scores_of((result_of(*wrong, (CAR, 0, 4, 0.1)), truth))[0] == pytest.approx(0.01)
    assert scores_of((result_of(*wrong, wrong[0], (CAR, 0, 4, 0.1)), truth))[0] == 0.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_without_objects_scores_are_zero() -> None:
    for seen in ([], [(result_of(), target_of())], [(result_of((CAR, 0, 2, 0.5)), target_of())]):
        metric = metric_of(*seen)
        assert metric.compute() == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
        assert [row["ap"] for row in metric.per_class()] == [None, None]


def test_an_object_that_is_missed_scores_zero_and_not_nothing() -> None:
    metric = metric_of((result_of(), target_of((CAR, 0, 4, False))))
    assert metric.compute()["ap"] == 0.0
    assert metric.per_class()[0]["ap"] == 0.0


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    scores_of((result_of((CAR, 0, 4, 0.9)), target_of((CAR, 0, 4, False))))
    assert capsys.readouterr() == ("", "")


def test_reset_forgets_everything() -> None:
    metric = metric_of((result_of((CAR, 8, 12, 0.9)), target_of((CAR, 0, 4, False))))
    metric.reset()
    metric.update(result_of((CAR, 0, 4, 0.9)), target_of((CAR, 0, 4, False)))
    assert metric.compute()["ap"] == pytest.approx(1.0)


def test_without_images_it_still_sends_what_others_expect() -> None:
    metric = InstancePrecision(CLASSES).to("cpu")  # which torchmetrics takes as a change of type
    for _ in range(2):
        assert [(item.dtype, item.numel()) for item in metric.images] == [(torch.uint8, 0)]
        metric.reset()


# ---------------------------------------------------------------- from the definition
def slow_precision(images: Any, threshold: float) -> float:
    """Return AP of one class without crowds: greedy matches, best score first."""
    found = [
        (score, image, item)
        for image, (objects, _) in enumerate(images)
        for *item, score in objects
    ]
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, image, (_, first, end) in sorted(found, key=lambda item: -item[0]):
        ratios = []
        for number, (_, left, right, _) in enumerate(images[image][1]):
            shared = max(0, min(end, right) - max(first, left))
            ratio = shared / (end - first + right - left - shared)
            if ratio >= threshold and (image, number) not in taken:
                ratios.append((ratio, number))
        if ratios:
            taken.add((image, max(ratios)[1]))
        hits.append(bool(ratios))
    total = sum(len(truth) for _, truth in images)
    curve = [
        (sum(hits[: end + 1]) / total, sum(hits[: end + 1]) / (end + 1)) for end in range(len(hits))
    ]
    levels = [
        max((precision for recall, precision in curve if recall >= step), default=0.0)
        for step in np.linspace(0, 1, 101)
    ]
    return float(np.mean(levels))


spans = st.tuples(st.just(CAR), st.integers(0, 11), st.integers(12, WIDTH))


@given(st.lists(st.tuples(st.lists(spans, max_size=4), st.lists(spans, max_size=4)), min_size=1,
                max_size=3), st.permutations(range(12)))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_precision_equals_the_definition(drawn: Any, order: list[int]) -> None:
    ranks = iter(order)
    images = [
        (
            [(*span, (next(ranks) + 1) / 16) for span in found],
            [(*span, False) for span in truth],
        )
        for found, truth in drawn
    ]
    scores = metric_of(
        *[(result_of(*found), target_of(*truth)) for found, truth in images]
    ).compute()
    if not any(truth for _, truth in images):
        assert scores["ap50"] == 0.0
        return
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    values = [slow_precision(images, threshold - 1e-9) for threshold in thresholds]
    assert scores["ap50"] == pytest.approx(values[0])
    assert scores["ap75"] == pytest.approx(values[5])
    assert scores["ap"] == pytest.approx(np.mean(values))


# ---------------------------------------------------------------- misuse
def test_other_sizes_are_refused() -> None:
    target = target_of((CAR, 0, 4, False))
    wrong = target._replace(masks=(target.masks[0][:, :1],))
    with pytest.raises(ValueError, match=r"\(0, 2, 24\) and truth \(1, 1, 24\)"):
        scores_of((result_of(), wrong))


@pytest.mark.parametrize("number", [-1, 3])
def test_a_class_that_does_not_exist_is_named(number: int) -> None:
    with pytest.raises(DataError, match=rf"a/b\.png: class {number} is none of the 3 classes"):
        scores_of((result_of(), target_of((number, 0, 4, False))))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match=r"`pycocotools`; pip install 'rtseg\[train\]'"):
        InstancePrecision(CLASSES)


# ---------------------------------------------------------------- processes
def images_of_a_set() -> list[tuple[InstanceResult, MaskTarget]]:
    """Equal scores, so that the order of the images decides."""
    truth = target_of((CAR, 0, 4, False))
    hit, miss = result_of((CAR, 0, 4, 0.5)), result_of((CAR, 8, 12, 0.5))
    return [(hit, truth), (miss, truth), (miss, truth), (hit, truth), (hit, truth)]


def score_share(rank: int, world: int, folder: Path, count: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet{count}", rank=rank, world_size=world
    )
    metric = metric_of(*images_of_a_set()[:count][rank::world])
    report = {"scores": metric.compute(), "classes": metric.per_class()}
    (folder / f"{count}_{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_what_processes_exchange_is_put_back_into_the_order_of_the_images() -> None:
    images, world = images_of_a_set(), 3
    shares = [metric_of(*images[rank::world]) for rank in range(world)]
    together = InstancePrecision(CLASSES)
    together.images = torch.cat([line for share in shares for line in share.images])
    assert list(together.compute().values()) == scores_of(*images)
    turned = scores_of(*[image for rank in range(world) for image in images[rank::world]])
    assert turned != scores_of(*images)  # the order matters here


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_processes_report_the_scores_of_one_even_without_images(tmp_path: Path, count: int) -> None:
    world = 3
    torch.multiprocessing.spawn(score_share, args=(world, tmp_path, count), nprocs=world)
    joint = metric_of(*images_of_a_set()[:count])
    for rank in range(world):
        report = json.loads((tmp_path / f"{count}_{rank}.json").read_text())
        assert report["scores"] == joint.compute()
        assert report["classes"] == joint.per_class()
