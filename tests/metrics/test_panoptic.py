"""Panoptic quality: hand cases, a slow reference, the published tool, processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtseg.data.panoptic_png import load_panoptic_json, read_panoptic_png
from rtseg.errors import DataError
from rtseg.metrics import panoptic
from rtseg.metrics.panoptic import PanopticCounts, PanopticQuality, panoptic_quality_counts
from rtseg.structures import ClassInfo, MaskTarget, PanopticResult, Segment

STUFF, THING = 0, 1
CLASSES = (ClassInfo("sky", (1, 2, 3)), ClassInfo("car", (4, 5, 6), thing=True))
Map = list[list[int]]


# ---------------------------------------------------------------- from the definition
def slow_counts(
    prediction: Any, found: Any, truth: Any, labelled: Any, num_classes: int
) -> list[list[float]]:
    """Return sum of IoU, TP, FP, FN by class, from sets of pixels."""
    pixels = list(np.ndindex(*truth.shape))
    void = {pixel for pixel in pixels if truth[pixel] == 0}
    area_of = {item: {pixel for pixel in pixels if truth[pixel] == item.id} for item in labelled}
    guess_of = {item: {pixel for pixel in pixels if prediction[pixel] == item.id} for item in found}
    iou, tp, fp, fn = ([0.0] * num_classes for _ in range(4))
    matched = set()
    for item, area in area_of.items():
        if item.crowd:
            continue
        ratios = {
            guess: len(area & part) / len(area | (part - void))
            for guess, part in guess_of.items()
            if guess.class_id == item.class_id
        }
        partners = [guess for guess, ratio in ratios.items() if ratio > 0.5]
        if not partners:
            fn[item.class_id] += 1
            continue
        (partner,) = partners
        matched.add(partner)
        tp[item.class_id] += 1
        iou[item.class_id] += ratios[partner]
    for guess, part in guess_of.items():
        if guess in matched:
            continue
        unclear = set(void)
        crowds = [item for item in labelled if item.crowd and item.class_id == guess.class_id]
        if crowds:
            unclear |= area_of[crowds[-1]]
        if len(part & unclear) <= len(part) / 2:
            fp[guess.class_id] += 1
    return [iou, tp, fp, fn]


@st.composite
def cases(draw: Any, num_classes: int = 3) -> Any:
    """A prediction that is the truth with some pixels and some classes changed."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    numbers = st.sampled_from([0, 1, 2, 3, 300, 70000])
    truth = draw(hnp.arrays(np.int32, shape, elements=numbers))
    noise = draw(hnp.arrays(np.int32, shape, elements=numbers))
    kept = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    prediction = np.where(kept, truth, noise)
    classes = st.integers(0, num_classes - 1)
    likely = {number: draw(classes) for number in (1, 2, 3, 300, 70000)}
    labelled = [
        Segment(int(number), likely[int(number)], crowd=draw(st.integers(0, 3)) == 0)
        for number in draw(st.permutations(np.unique(truth).tolist()))
        if number
    ]
    found = [
        Segment(int(number), draw(st.sampled_from([likely[int(number)], draw(classes)])))
        for number in np.unique(prediction)
        if number
    ]
    return prediction, found, truth, labelled


@given(cases())
@settings(max_examples=300, deadline=None)
def test_counts_equal_the_definition(case: Any) -> None:
    counts = panoptic_quality_counts(*case, num_classes=3)
    iou, *numbers = slow_counts(*case, num_classes=3)
    assert np.allclose(counts.iou, iou, rtol=0, atol=1e-12)
    assert [values.tolist() for values in counts[1:]] == numbers
    assert [values.dtype for values in counts] == [np.float64, *[np.int64] * 3]


@given(cases(), st.permutations(range(3)))
@settings(max_examples=50, deadline=None)
def test_renaming_classes_and_ids_permutes_the_counts(case: Any, order: list[int]) -> None:
    prediction, found, truth, labelled = case
    plain = panoptic_quality_counts(*case, num_classes=3)
    renamed = [Segment(9 * item.id, order[item.class_id], item.crowd) for item in found]
    relabelled = [Segment(5 * item.id, order[item.class_id], item.crowd) for item in labelled]
    other = panoptic_quality_counts(
        9 * prediction, renamed, 5 * truth, relabelled, num_classes=3
    )  # fmt: skip
    for values, permuted in zip(plain, other, strict=True):
        assert np.allclose(permuted[list(order)], values)


def test_maps_larger_than_one_chunk_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 9, (7, 5)), 3, axis=1)
    prediction = np.where(rng.random(truth.shape) < 0.8, truth, 3)
    segments = [Segment(number, number % 3) for number in range(1, 9)]
    case = (prediction, segments, truth, segments)
    whole = panoptic_quality_counts(*case, num_classes=3)
    monkeypatch.setattr(panoptic, "_CHUNK", 16)
    pieces = panoptic_quality_counts(*case, num_classes=3)
    iou, *numbers = slow_counts(*case, num_classes=3)
    assert np.allclose(whole.iou, iou)
    for first, second in zip(whole, pieces, strict=True):
        assert np.array_equal(first, second)
    assert [values.tolist() for values in whole[1:]] == numbers


def test_so_many_segments_that_their_pairs_exceed_16_bits_are_counted_right() -> None:
    ids = np.arange(1, 301, dtype=np.int32).reshape(15, 20)
    segments = [Segment(number, number % 2) for number in range(1, 301)]
    counts = panoptic_quality_counts(ids, segments, ids, segments, num_classes=2)
    assert counts.tp.tolist() == [150, 150]
    assert counts.iou.tolist() == [150.0, 150.0]


# ---------------------------------------------------------------- hand cases
def result_of(ids: Map, *classes: int, source: str = "a/b.png") -> PanopticResult:
    """Make a result whose segments 10, 11, ... have these classes."""
    segments = tuple(Segment(10 + index, class_id) for index, class_id in enumerate(classes))
    names, palette = zip(*[(item.name, item.color) for item in CLASSES], strict=True)
    scores = tuple(1.0 for _ in segments)
    array = np.array(ids, np.int32)
    return PanopticResult(array, segments, scores, names, palette, source=source)


def target_of(ids: Map, *classes: int, crowd: tuple[int, ...] = ()) -> MaskTarget:
    """Make a target whose segments 1, 2, ... have these classes; `crowd` holds ids."""
    array, numbers = torch.tensor(ids), torch.arange(1, len(classes) + 1)
    masks = array[None] == numbers[:, None, None]
    crowds = torch.isin(numbers, torch.tensor(crowd, dtype=torch.int64))
    return MaskTarget((torch.tensor(classes).long(),), (masks,), (crowds,), (array == 0)[None])


def scores_of(*seen: tuple[PanopticResult, MaskTarget]) -> PanopticQuality:
    metric = PanopticQuality(CLASSES)
    for result, target in seen:
        metric.update(result, target)
    return metric


def test_case_a_a_prediction_on_void_is_neither_hit_nor_mistake() -> None:
    truth = [[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]]
    guess = [[11, 10, 10, 10], [10, 10, 10, 10], [11, 11, 11, 12], [11, 11, 11, 12]]
    metric = scores_of((result_of(guess, STUFF, THING, THING), target_of(truth, STUFF, THING)))
    scores = metric.compute()
    assert scores["pq_stuff"] == pytest.approx(7 / 8)
    assert scores["pq_things"] == pytest.approx(4 / 5)
    assert scores["pq"] == pytest.approx(0.8375)
    assert (scores["sq"], scores["rq"]) == (pytest.approx(0.8375), 1.0)
    assert metric.per_class() == [
        {"name": "sky", "pq": 0.875, "sq": 0.875, "rq": 1.0, "tp": 1, "fp": 0, "fn": 0},
        {"name": "car", "pq": 0.8, "sq": 0.8, "rq": 1.0, "tp": 1, "fp": 0, "fn": 0},
    ]


def test_case_b_a_crowd_is_not_missed_and_a_prediction_mostly_on_it_is_no_mistake() -> None:
    truth = [[1, 1, 2, 2, 2, 2]]
    guess = [[10, 10, 11, 11, 11, 0]]
    target = target_of(truth, THING, THING, crowd=(2,))
    scores = scores_of((result_of(guess, THING, THING), target)).compute()
    assert (scores["pq"], scores["rq"]) == (1.0, 1.0)
    assert scores["classes_in_mean"] == 1


@pytest.mark.parametrize(
    ("guess", "crowd_class", "false_positives"),
    [
        ([[10, 10, 11, 11, 11, 11]], THING, 0),
        ([[10, 10, 11, 11, 11, 11]], STUFF, 1),  # a crowd of another class excuses nothing
        ([[11, 11, 11, 10, 10, 10]], THING, 0),  # 10 is wholly on the crowd, 11 matches
        ([[11, 11, 10, 10, 0, 0]], THING, 0),
        ([[10, 11, 11, 0, 0, 0]], THING, 2),  # exactly half of 11 on the crowd does not excuse it
    ],
)
def test_only_a_crowd_of_the_class_under_more_than_half_excuses(
    guess: Map, crowd_class: int, false_positives: int
) -> None:
    target = target_of([[1, 1, 2, 2, 2, 2]], THING, crowd_class, crowd=(2,))
    metric = scores_of((result_of(guess, THING, THING), target))
    assert metric.fp.sum() == false_positives


def test_case_c_an_overlap_of_exactly_half_is_no_match() -> None:
    metric = scores_of(
        (result_of([[10, 11, 11, 11]], STUFF, THING), target_of([[1, 1, 2, 2]], STUFF, THING))
    )
    scores = metric.compute()
    assert scores["pq_stuff"] == 0.0
    assert scores["pq_things"] == pytest.approx(2 / 3)
    assert scores["pq"] == pytest.approx(1 / 3)
    assert scores["sq"] == pytest.approx(1 / 3)
    assert scores["rq"] == 0.5
    assert (metric.tp.tolist(), metric.fp.tolist(), metric.fn.tolist()) == ([0, 1], [1, 0], [1, 0])


def test_mistakes_and_misses_count_half_each() -> None:
    truth, guess = [[1, 1, 2, 3, 4]], [[10, 10, 11, 0, 0]]
    target = target_of(truth, THING, STUFF, THING, THING)
    metric = scores_of((result_of(guess, THING, THING), target))
    row = metric.per_class()[THING]
    assert (row["tp"], row["fp"], row["fn"]) == (1, 1, 2)
    assert row["sq"] == 1.0
    assert row["pq"] == row["rq"] == pytest.approx(1 / 2.5)
    assert metric.per_class()[STUFF]["fn"] == 1


def test_sums_are_over_the_data_set_and_not_over_images() -> None:
    first = (result_of([[10, 10, 10, 0]], THING), target_of([[1, 1, 1, 1]], THING))
    second = (result_of([[0, 0, 0, 0]]), target_of([[1, 2, 3, 0]], THING, THING, THING))
    assert scores_of(first, second).compute()["pq"] == pytest.approx(0.75 / (1 + 3 / 2))
    assert scores_of(second, first).compute() == scores_of(first, second).compute()


def test_a_perfect_prediction_scores_one_and_names_all_scores() -> None:
    scores = scores_of(
        (result_of([[10, 11, 12]], STUFF, THING, THING), target_of([[1, 2, 3]], 0, 1, 1))
    ).compute()
    assert scores.pop("classes_in_mean") == 2
    assert set(scores.values()) == {1.0}
    assert list(scores) == [
        f"{name}{group}" for group in ("", "_things", "_stuff") for name in ("pq", "sq", "rq")
    ]


# ---------------------------------------------------------------- borders
def test_a_single_pixel_can_be_found_or_missed() -> None:
    truth = target_of([[1]], THING)
    assert scores_of((result_of([[10]], THING), truth)).compute()["pq"] == 1.0
    assert scores_of((result_of([[10]], STUFF), truth)).compute()["pq"] == 0.0
    assert scores_of((result_of([[0]]), truth)).compute()["pq"] == 0.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_without_any_class_all_scores_are_zero_and_none_is_nan() -> None:
    everything_void = (result_of([[10, 10]], THING), target_of([[0, 0]]))
    empty = (result_of([[]]), target_of([[]]))
    for metric in (scores_of(), scores_of(everything_void), scores_of(empty)):
        assert set(metric.compute().values()) == {0.0}
        assert [row["pq"] for row in metric.per_class()] == [None, None]
        assert metric.matrices() == {}


def test_classes_that_do_not_occur_are_left_out_of_the_means() -> None:
    scores = scores_of((result_of([[10]], STUFF), target_of([[1]], STUFF))).compute()
    assert (scores["pq"], scores["pq_stuff"], scores["pq_things"]) == (1.0, 1.0, 0.0)
    assert scores["classes_in_mean"] == 1


def test_masks_without_pixels_and_more_than_255_masks_are_read() -> None:
    ids = torch.arange(1, 301).reshape(15, 20)
    masks = torch.cat([torch.zeros(1, 15, 20).bool(), ids[None] == ids.reshape(-1, 1, 1)])
    labels = torch.ones(301).long()
    target = MaskTarget((labels,), (masks,), (torch.zeros(301).bool(),), torch.zeros(1, 15, 20) > 0)
    segments = tuple(Segment(int(number), THING) for number in ids.ravel())
    names, palette = ("sky", "car"), ((0, 0, 0), (0, 0, 0))
    result = PanopticResult(ids.int().numpy(), segments, (1.0,) * 300, names, palette)
    metric = scores_of((result, target))
    assert (metric.tp.tolist(), metric.fn.tolist()) == ([0, 300], [0, 0])


def test_masks_that_overlap_are_refused() -> None:
    target = target_of([[1, 2]], THING, THING)
    target.masks[0][1] = True
    with pytest.raises(ValueError, match="overlap"):
        scores_of((result_of([[10, 10]], THING), target))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1\).*\(1, 2\)"):
        scores_of((result_of([[10]], THING), target_of([[1, 2]], THING, THING)))


ONE = np.ones((1, 2), np.int32)


@pytest.mark.parametrize(
    ("prediction", "found", "message"),
    [
        (ONE, [], "id 1 occurs in the map, but not among its segments"),
        (5 * ONE, [Segment(1, 0)], "id 5 occurs in the map"),
        (ONE, [Segment(1, 0), Segment(2, 0)], "segment 2 has no pixel in the map"),
        (ONE, [Segment(1, 2)], "segment 1 has class 2, but the classes are 0 to 1"),
        (ONE, [Segment(1, -1)], "segment 1 has class -1"),
        (ONE, [Segment(1, 0), Segment(1, 1)], "segment ids must differ"),
        (0 * ONE, [Segment(0, 0)], "segment ids must differ and be 1 to"),
        (-ONE, [], "id -1 is not in 0 to 16777215"),
        (ONE << 24, [], "id 16777216 is not in 0 to 16777215"),
    ],
)
def test_maps_and_segments_that_disagree_are_named(
    prediction: Any, found: list[Segment], message: str
) -> None:
    truth = (ONE, [Segment(1, 0)])
    with pytest.raises(DataError, match=rf"^a\.png, prediction: {message}"):
        panoptic_quality_counts(prediction, found, *truth, num_classes=2, where="a.png")
    with pytest.raises(DataError, match=rf"^image, truth: {message}"):
        panoptic_quality_counts(*truth, prediction, found, num_classes=2)


# ---------------------------------------------------------------- the published tool
def test_scores_equal_those_of_the_published_tool(coco_panoptic_sample: Path) -> None:
    names = ("gt", "pred")
    truth, guess = (load_panoptic_json(coco_panoptic_sample / f"{name}.json") for name in names)
    expected = json.loads((coco_panoptic_sample / "expected_pq.json").read_text())
    size = max(truth.classes) + 1
    total = PanopticCounts(np.zeros(size), *(np.zeros(size, np.int64) for _ in range(3)))
    for name, segments in truth.segments.items():
        ids = read_panoptic_png(coco_panoptic_sample / "gt" / name, segments)
        found = guess.segments[name]
        prediction = read_panoptic_png(coco_panoptic_sample / "pred" / name, found)
        counts = panoptic_quality_counts(prediction, found, ids, segments, num_classes=size)
        total = PanopticCounts(*(np.add(*pair) for pair in zip(total, counts, strict=True)))
        same = panoptic_quality_counts(ids, segments, ids, segments, num_classes=size)
        assert (same.iou.sum(), same.fn.sum()) == (same.tp.sum(), 0)
    unused = ClassInfo("", (0, 0, 0))
    metric = PanopticQuality([truth.classes.get(index, unused) for index in range(size)])
    for name, values in total._asdict().items():
        setattr(metric, name, torch.from_numpy(values))
    rows = metric.per_class()
    assert len(expected["per_class"]) == 8
    for index, row in expected["per_class"].items():
        mine = rows[int(index)]
        assert {key: mine[key] for key in ("tp", "fp", "fn")} == {
            key: row[key] for key in ("tp", "fp", "fn")
        }
        assert mine["pq"] == pytest.approx(row["pq"], abs=1e-12)
        assert total.iou[int(index)] == pytest.approx(row["iou_sum"], abs=1e-12)
    metric._update_count = 2
    scores = metric.compute()
    assert scores["classes_in_mean"] == 8
    for ending, group in (("", "All"), ("_things", "Things"), ("_stuff", "Stuff")):
        for name in ("pq", "sq", "rq"):
            assert scores[name + ending] == pytest.approx(expected[group][name], abs=1e-12)


# ---------------------------------------------------------------- processes
def images() -> list[tuple[PanopticResult, MaskTarget]]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2):
        ids = np.arange(0, 20).reshape(4, 5) // 5
        guess = np.where(rng.random(ids.shape) < 0.7, np.where(ids > 0, ids + 9, 0), 12)
        guess[0, 0], guess[1, 1], guess[2, 2] = 10, 10, 11
        guess[3, 4] = 12
        found.append((result_of(guess.tolist(), 0, 1, 1), target_of(ids.tolist(), 0, 1, 1)))
    return found


def score_share(rank: int, world: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    metric = scores_of(*images()[rank::world])
    report = {"scores": metric.compute(), "classes": metric.per_class()}
    (folder / f"{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_report_the_scores_of_one_even_if_one_of_them_has_no_image(
    tmp_path: Path,
) -> None:
    world = 3
    torch.multiprocessing.spawn(score_share, args=(world, tmp_path), nprocs=world)
    joint = scores_of(*images())
    assert 0 < joint.compute()["pq"] < 1
    for rank in range(world):
        report = json.loads((tmp_path / f"{rank}.json").read_text())
        assert report["scores"] == pytest.approx(joint.compute(), abs=1e-12)
        numbers = [[row[key] for key in ("tp", "fp", "fn")] for row in report["classes"]]
        assert numbers == [[row[key] for key in ("tp", "fp", "fn")] for row in joint.per_class()]
