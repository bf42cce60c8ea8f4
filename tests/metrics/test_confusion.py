from __future__ import annotations

import json
import resource
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.classification import MulticlassJaccardIndex

from rtseg.errors import DataError
from rtseg.metrics import confusion
from rtseg.metrics.confusion import SegmentationScores, confusion_matrix
from rtseg.structures import SemanticResult, SemanticTarget

CLASSES = 5
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
LABELS = st.sampled_from([0, 1, 2, 3, 4, 255])


@st.composite
def pairs(draw, labels=LABELS):
    shape = draw(SHAPES)
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1)))
    truth = draw(hnp.arrays(np.uint8, shape, elements=labels))
    return prediction, truth


def slow_matrix(prediction, truth, num_classes):
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for row in range(prediction.shape[0]):
        for column in range(prediction.shape[1]):
            if truth[row, column] != 255:
                matrix[truth[row, column]][prediction[row, column]] += 1
    return np.array(matrix)


def result_of(mask, num_classes=CLASSES):
    names = tuple(f"class {index}" for index in range(num_classes))
    return SemanticResult(mask.copy(), names, tuple((0, 0, 0) for _ in names), source="a/b.png")


def scores_of(*seen, num_classes=CLASSES):
    scores = SegmentationScores(num_classes)
    for prediction, truth in seen:
        labels = torch.from_numpy(truth.astype(np.int64))[None]
        scores.update(result_of(prediction, num_classes), SemanticTarget(labels))
    return scores


def maps_from_matrix(matrix):
    """One row of pixels that gives this confusion matrix."""
    matrix = np.array(matrix)
    truth, prediction = np.indices(matrix.shape).reshape(2, 1, -1)
    repeats = matrix.ravel()
    return (
        np.repeat(prediction, repeats, axis=1).astype(np.uint8),
        np.repeat(truth, repeats, axis=1).astype(np.uint8),
    )


@given(pairs())
def test_matrix_equals_counting_pixel_by_pixel(pair):
    prediction, truth = pair
    expected = slow_matrix(prediction, truth, CLASSES)
    for dtype in (np.uint8, np.int64):
        counted = confusion_matrix(prediction, truth.astype(dtype), CLASSES)
        assert counted.dtype == np.int64
        assert np.array_equal(counted, expected)


@given(st.lists(pairs(), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_miou_equals_torchmetrics_over_the_whole_set(seen):
    oracle = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=255)
    for prediction, truth in seen:
        oracle.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
    matrix = oracle.confmat
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    occurs = union > 0
    expected = float(oracle.compute()[occurs].double().mean()) if occurs.any() else 0.0
    scores = scores_of(*seen).compute()
    assert scores["miou"] == pytest.approx(expected, abs=1e-6)
    assert scores["classes_in_mean"] == int(occurs.sum())


def test_map_larger_than_one_chunk_with_odd_remainder_is_counted_once(monkeypatch):
    monkeypatch.setattr(confusion, "_CHUNK", 16)
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, CLASSES, (7, 9), dtype=np.uint8)
    truth = rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (7, 9))
    counted = confusion_matrix(prediction, truth, CLASSES)
    assert np.array_equal(counted, slow_matrix(prediction, truth, CLASSES))


@pytest.mark.parametrize("num_classes", [1, 2, 127, 128, 255])
def test_highest_class_and_ignore_do_not_collide(num_classes):
    top = num_classes - 1
    prediction = np.array([[top, top, 0]], np.uint8)
    truth = np.array([[top, 255, top]], np.uint8)
    counted = confusion_matrix(prediction, truth, num_classes)
    assert counted.sum() == 2
    assert counted[top, top] == (2 if num_classes == 1 else 1)
    assert counted[top, 0] == (2 if num_classes == 1 else 1)


def test_sixteen_bit_prediction_and_strided_maps_are_read_right():
    rng = np.random.default_rng(1)
    prediction = rng.integers(0, CLASSES, (8, 6), dtype=np.uint8)
    truth = rng.integers(0, CLASSES, (8, 6), dtype=np.uint8)
    expected = slow_matrix(prediction, truth, CLASSES)
    assert np.array_equal(confusion_matrix(prediction.astype(np.uint16), truth, CLASSES), expected)
    turned = confusion_matrix(prediction.T, np.asfortranarray(truth).T, CLASSES)
    assert np.array_equal(turned, expected)
    read_only = truth.copy()
    read_only.flags.writeable = False
    assert np.array_equal(confusion_matrix(prediction, read_only, CLASSES), expected)


def test_hand_case_gives_the_two_means():
    prediction, truth = maps_from_matrix([[4, 1, 0, 0], [2, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    scores = SegmentationScores(4, ["road", "car", "person", "train"])
    labels = torch.from_numpy(truth.astype(np.int64))[None]
    scores.update(result_of(prediction, 4), SemanticTarget(labels))
    values = scores.compute()
    # hits 4, 3, 0; truth 5, 5, 1; prediction 7, 4, 0; union 8, 6, 1
    assert values["miou"] == pytest.approx((4 / 8 + 3 / 6 + 0) / 3)
    assert values["miou"] == pytest.approx(1 / 3)
    assert values["miou_paper"] == pytest.approx(0.5)
    assert values["classes_in_mean"] == 3
    assert values["pixel_accuracy"] == pytest.approx(7 / 11)
    assert values["mean_accuracy"] == pytest.approx((4 / 5 + 3 / 5 + 0) / 3)
    assert values["frequency_weighted_iou"] == pytest.approx((5 * 0.5 + 5 * 0.5 + 0) / 11)
    assert values["mean_dice"] == pytest.approx((8 / 12 + 6 / 9 + 0) / 3)
    rows = scores.per_class()
    assert rows[0] == {
        "name": "road",
        "iou": 0.5,
        "accuracy": 0.8,
        "dice": pytest.approx(2 / 3),
        "pixels": 5,
    }
    assert rows[2] == {"name": "person", "iou": 0.0, "accuracy": 0.0, "dice": 0.0, "pixels": 1}
    assert rows[3] == {"name": "train", "iou": None, "accuracy": None, "dice": None, "pixels": 0}


def test_class_predicted_but_not_in_truth_has_iou_but_no_accuracy():
    scores = scores_of((np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8)))
    assert scores.per_class()[1]["iou"] == 0.0
    assert scores.per_class()[1]["accuracy"] is None
    assert scores.compute()["mean_accuracy"] == 0.5
    assert scores.compute()["miou"] == 0.25


@given(st.lists(pairs(), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_image_order_and_merging_change_nothing(seen, random):
    joint = scores_of(*seen)
    shuffled = list(seen)
    random.shuffle(shuffled)
    cut = random.randint(0, len(seen))
    first, second = scores_of(*shuffled[:cut]), scores_of(*shuffled[cut:])
    first.merge(second)
    assert torch.equal(first.confusion, joint.confusion)
    assert first.compute() == joint.compute()


def test_merge_after_compute_is_not_hidden_by_the_cached_scores():
    right = scores_of((np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8)))
    wrong = scores_of((np.ones((1, 2), np.uint8), np.zeros((1, 2), np.uint8)))
    assert right.compute()["pixel_accuracy"] == 1.0
    right.merge(wrong)
    assert right.compute()["pixel_accuracy"] == 0.5
    assert wrong.compute()["pixel_accuracy"] == 0.0


@given(pairs(), st.permutations(range(CLASSES)))
@settings(max_examples=30, deadline=None)
def test_renaming_classes_permutes_per_class_scores_and_keeps_the_means(pair, order):
    prediction, truth = pair
    table = np.full(256, 255, np.uint8)
    table[:CLASSES] = order
    plain, renamed = scores_of(pair), scores_of((table[prediction], table[truth]))
    for key, value in plain.compute().items():
        assert renamed.compute()[key] == pytest.approx(value)
    for old, new in enumerate(order):
        assert renamed.per_class()[new]["iou"] == plain.per_class()[old]["iou"]


@given(pairs(), st.integers(0, CLASSES - 1))
@settings(max_examples=30, deadline=None)
def test_prediction_under_ignored_pixels_changes_nothing(pair, value):
    prediction, truth = pair
    changed = np.where(truth == 255, np.uint8(value), prediction)
    assert torch.equal(scores_of(pair).confusion, scores_of((changed, truth)).confusion)


@given(pairs())
@settings(max_examples=30, deadline=None)
def test_scores_are_shares_and_never_nan(pair):
    values = scores_of(pair).compute()
    count = values.pop("classes_in_mean")
    assert 0 <= count <= CLASSES
    assert all(0.0 <= value <= 1.0 for value in values.values())


def test_perfect_prediction_scores_one():
    truth = np.arange(4, dtype=np.uint8).reshape(2, 2)
    values = scores_of((truth, truth)).compute()
    assert values.pop("classes_in_mean") == 4
    assert set(values.values()) == {1.0}


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("shape", [None, (0, 4), (2, 2)])
def test_nothing_labelled_scores_zero_over_no_classes(shape):
    scores = SegmentationScores(CLASSES)
    if shape:
        scores.update(
            result_of(np.zeros(shape, np.uint8)), SemanticTarget(torch.full((1, *shape), 255))
        )
    assert set(scores.compute().values()) == {0.0}
    assert all(row["iou"] is None for row in scores.per_class())


def test_labels_without_batch_dimension_and_of_uint8_are_accepted():
    prediction = np.array([[0, 1]], np.uint8)
    scores = SegmentationScores(CLASSES)
    scores.update(result_of(prediction), SemanticTarget(torch.tensor([[0, 255]]).byte()))
    assert scores.confusion.sum() == 1
    assert scores.confusion[0, 0] == 1


def test_reset_forgets_everything():
    scores = scores_of((np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8)))
    scores.reset()
    assert int(scores.confusion.sum()) == 0


def test_counts_stay_exact_beyond_what_float32_and_int32_hold():
    scores = scores_of((np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)))
    scores.confusion += torch.eye(CLASSES, dtype=torch.int64) * (2**40)
    scores.merge(scores_of((np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))))
    assert int(scores.matrix()[0, 0]) == 2**40 + 2


def test_different_sizes_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), CLASSES)


def test_batch_of_two_labels_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        SegmentationScores(CLASSES).update(
            result_of(np.zeros((2, 2), np.uint8)),
            SemanticTarget(torch.zeros(2, 2, 2, dtype=torch.int64)),
        )


@pytest.mark.parametrize("value", [5, 254])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_label_outside_the_classes_is_named_with_its_image(value, dtype):
    scores = SegmentationScores(CLASSES)
    labels = torch.tensor([[[0, value]]]).to(dtype)
    with pytest.raises(DataError, match=rf"a/b\.png: label {value} is not a class \(0 to 4\)"):
        scores.update(result_of(np.zeros((1, 2), np.uint8)), SemanticTarget(labels))
    assert int(scores.confusion.sum()) == 0


@pytest.mark.parametrize("value", [-1, 256, 511])
def test_wide_label_outside_uint8_is_named_and_does_not_wrap(value):
    with pytest.raises(DataError, match=f"label {value} is not"):
        confusion_matrix(np.zeros((1, 2), np.uint8), np.array([[0, value]]), CLASSES)


@pytest.mark.parametrize("value", [5, 255])
def test_prediction_outside_the_classes_is_refused(value):
    with pytest.raises(ValueError, match=f"prediction holds {value}"):
        confusion_matrix(np.array([[0, value]], np.uint8), np.zeros((1, 2), np.uint8), CLASSES)


@pytest.mark.parametrize("num_classes", [0, 256])
def test_class_count_that_collides_with_ignore_is_refused(num_classes):
    with pytest.raises(ValueError, match="1 to 255"):
        SegmentationScores(num_classes)
    with pytest.raises(ValueError, match="1 to 255"):
        confusion_matrix(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), num_classes)


def test_names_must_fit_and_merging_needs_equal_classes():
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        SegmentationScores(3, ["a", "b"])
    with pytest.raises(ValueError, match="cannot merge"):
        SegmentationScores(2).merge(SegmentationScores(3))


def test_counting_allocates_far_less_than_one_int64_copy():
    prediction = np.zeros((512, 1024), np.uint8)
    truth = np.zeros((512, 1024), np.uint8)
    confusion_matrix(prediction, truth, 19)
    tracemalloc.start()
    confusion_matrix(prediction, truth, 19)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < prediction.size  # an int64 copy would be 8 bytes a pixel


def score_share(rank, world, folder):
    """Score every image whose number fits the rank, then write what this process reports."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    scores = scores_of(*images_of_a_set()[rank::world])
    report = {
        "scores": scores.compute(),
        "classes": scores.per_class(),
        "matrix": scores.matrix().tolist(),
        "own": int(scores.confusion.sum()),
    }
    (folder / f"{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


def images_of_a_set():
    rng = np.random.default_rng(3)
    labels = np.array([0, 1, 2, 3, 4, 255], np.uint8)
    return [
        (rng.integers(0, CLASSES, (4, 4), dtype=np.uint8), rng.choice(labels, (4, 4)))
        for _ in range(2)
    ]


@pytest.mark.slow
def test_processes_report_the_integers_of_one_even_if_one_of_them_has_no_image(tmp_path):
    world = 3
    torch.multiprocessing.spawn(score_share, args=(world, tmp_path), nprocs=world)
    joint = scores_of(*images_of_a_set())
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    for report in reports:
        assert report["matrix"] == joint.matrix().tolist()
        assert report["scores"] == joint.compute()
        assert report["classes"] == joint.per_class()
    assert sum(report["own"] for report in reports) == int(joint.confusion.sum())
    assert reports[2]["own"] == 0


@pytest.mark.slow
def test_memory_is_flat_from_ten_to_a_thousand_full_size_maps():
    rng = np.random.default_rng(0)
    prediction = result_of(rng.integers(0, 19, (1024, 2048), dtype=np.uint8), 19)
    target = SemanticTarget(torch.from_numpy(rng.integers(0, 19, (1, 1024, 2048), dtype=np.uint8)))
    scores = SegmentationScores(19)
    peaks = {}
    for count in range(1, 1001):
        scores.update(prediction, target)
        peaks[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peaks[1000] - peaks[10] <= 1024  # KiB
    assert int(scores.confusion.sum()) == 1000 * 1024 * 2048
