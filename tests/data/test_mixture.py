"""Mixtures: how often each sample is drawn, in what order, and which sets fit together."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from rtseg.data.loader import TrainBatches, TrainView, opened, train_loader
from rtseg.data.mixture import Mixture, mixed_statistics, sets_of
from rtseg.data.transforms import Augment
from rtseg.data.weights import class_statistics
from rtseg.errors import ConfigError, RtsegError
from rtseg.structures import ClassInfo, Sample
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from training.toy import CLASSES, PREPROCESS, Pictures


class Frames:
    """Gray frames with one value in every label; `kinds` and classes as asked for."""

    def __init__(
        self,
        length: int,
        *,
        value: int = 0,
        kinds: tuple[str, ...] = ("drivable", "lane"),
        classes: tuple[ClassInfo, ...] = (),
    ) -> None:
        self.length, self.value, self.kinds, self.classes = length, value, kinds, classes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        image = np.full((8, 8, 3), 10 * self.value + index, np.uint8)
        labels = {kind: np.full((8, 8), self.value, np.uint8) for kind in self.kinds}
        return Sample(image, labels, path=f"{self.value}/{index}")


def pictures(*lengths: int) -> list[Any]:
    return [Pictures(length, seed=number) for number, length in enumerate(lengths)]


def drawn(mixture: Mixture, epochs: int, seed: int = 0) -> Counter[int]:
    keys = [mixture.keys(seed, epoch) for epoch in range(epochs)]
    assert {len(item) for item in keys} == {mixture.draws}
    return Counter(int(key) % len(mixture) for key in itertools.chain(*keys))


# ---------------------------------------------------------------- how often
def test_samples_are_those_of_the_sets_one_after_the_other() -> None:
    mixture = Mixture([Frames(2), Frames(3, value=1)], [1, 1])
    assert len(mixture) == 5
    assert [mixture[i].path for i in range(5)] == ["0/0", "0/1", "1/0", "1/1", "1/2"]
    for index in (5, -1):
        with pytest.raises(IndexError):
            mixture[index]


def test_with_weight_1_the_batches_are_those_of_one_set() -> None:
    mixture = Mixture(pictures(5, 6), [1, 1.0])
    for epoch in range(3):
        assert mixture.keys(7, epoch).tolist() == list(range(11))
    mixed, single = (
        list(itertools.islice(TrainBatches(source, batch_size=4, seed=7, start=1), 9))
        for source in (mixture, 11)
    )
    assert mixed == single


def test_weight_2_draws_each_sample_twice_with_keys_of_its_own() -> None:
    mixture = Mixture(pictures(2, 3), [1, 2])
    assert mixture.draws == 8
    # 2, 3, 4 are the samples of the second set; 5 more is the same sample once more
    assert mixture.keys(0, 0).tolist() == [0, 1, 2, 7, 3, 8, 4, 9]


def test_a_sample_that_is_drawn_twice_is_augmented_twice() -> None:
    mixture = Mixture(pictures(3), [2])
    view = TrainView(mixture, Augment(crop=(9, 9)), PREPROCESS, seed=0)
    once, again = view[0, 1], view[0, 4]
    assert not isinstance(once, RtsegError)
    assert not isinstance(again, RtsegError)
    assert once.sample.path == again.sample.path == "picture/1"
    assert (once.sample.image != again.sample.image).any()


def test_weight_one_half_draws_the_other_half_in_the_next_epoch() -> None:
    mixture = Mixture(pictures(4, 10), [1, 0.5])
    for first in (0, 2, 4):
        one, two = ({key for key in mixture.keys(0, first + add).tolist() if key >= 4}
                    for add in (0, 1))  # fmt: skip
        assert len(one) == len(two) == 5
        assert one | two == set(range(4, 14))
    assert mixture.keys(0, 0).tolist() != mixture.keys(0, 2).tolist()  # a new permutation
    assert mixture.keys(0, 0).tolist() != mixture.keys(1, 0).tolist()


@pytest.mark.parametrize("weight", [0.1, 0.3, 1.0, 1.7, 2.5])
def test_no_sample_falls_behind_whatever_the_weight(weight: float) -> None:
    mixture = Mixture(pictures(10, 3), [weight, 1])
    for epochs in range(1, 25):
        counts = drawn(mixture, epochs)
        mine = [counts[index] for index in range(10)]
        assert sum(mine) == epochs * round(10 * weight)
        assert max(mine) - min(mine) <= 1
        assert [counts[index] for index in (10, 11, 12)] == [epochs] * 3


def test_the_number_drawn_is_rounded() -> None:
    assert Mixture(pictures(10, 7), [0.26, 0.5]).drawn == (3, 4)


def test_sets_of_equal_length_are_not_drawn_in_step() -> None:
    mixture = Mixture(pictures(40, 40), [0.5, 0.5])
    keys = mixture.keys(0, 0)
    assert set((keys[20:] - 40).tolist()) != set(keys[:20].tolist())


@pytest.mark.parametrize("start", range(8))
def test_beginning_at_a_step_is_leaving_out_the_steps_before(start: int) -> None:
    mixture = Mixture(pictures(5, 6), [0.6, 1.5])  # 3 + 9 draws: 3 batches per epoch
    whole, rest = (
        list(itertools.islice(TrainBatches(mixture, batch_size=4, seed=0, start=first), 12))
        for first in (0, start)
    )
    assert TrainBatches(mixture, batch_size=4, seed=0).batches_per_epoch == 3
    assert rest[: 12 - start] == whole[start:]


def test_batches_hold_what_their_epoch_draws() -> None:
    mixture = Mixture(pictures(4, 8), [1, 0.5])
    batches = itertools.islice(TrainBatches(mixture, batch_size=4, seed=5), 6)
    keys = list(itertools.chain(*batches))
    for epoch in range(3):
        mine = [key for number, key in keys if number == epoch]
        assert sorted(mine) == sorted(mixture.keys(5, epoch).tolist())


def test_a_batch_must_fit_into_what_an_epoch_draws() -> None:
    with pytest.raises(ConfigError, match=r"at most 5"):
        TrainBatches(Mixture(pictures(10), [0.5]), batch_size=6, seed=0)


# ---------------------------------------------------------------- which sets fit
def test_kinds_are_those_of_all_sets_and_classes_those_of_the_labelled_ones() -> None:
    road = Frames(2)
    semantic = Frames(2, kinds=("semantic", "lane"), classes=CLASSES)
    mixture = Mixture([road, semantic], [1, 1])
    assert mixture.kinds == ("drivable", "lane", "semantic")
    assert mixture.classes == CLASSES
    assert Mixture([road, road], [1, 1]).classes == ()
    assert list(sets_of(mixture)) == [road, semantic]
    assert list(sets_of(road)) == [road]


RENAMED = (CLASSES[0], ClassInfo("other", (0, 0, 0)), CLASSES[2])
COUNTABLE = (*CLASSES[:2], ClassInfo("high", (0, 0, 0), thing=True))


@pytest.mark.parametrize(
    ("classes", "kinds", "says"),
    [
        (CLASSES[:2], ("semantic",), "2 instead of 3"),
        (RENAMED, ("semantic",), "class 1 is 'other' instead of 'middle'"),
        (RENAMED, ("panoptic",), "class 1 is 'other' instead of 'middle'"),
        (RENAMED, ("class",), "class 1 is 'other' instead of 'middle'"),
        (CLASSES[::-1], ("semantic",), "class 0 is 'high' instead of 'low'"),
        (COUNTABLE, ("panoptic",), "class 2, 'high', is a thing in only one of them"),
        (COUNTABLE, ("semantic",), ""),
        (RENAMED, ("drivable",), ""),
        ((), ("lane",), ""),
    ],
)
def test_sets_with_class_ids_must_have_the_same_classes(
    classes: tuple[ClassInfo, ...], kinds: tuple[str, ...], says: str
) -> None:
    parts = [
        Frames(2, kinds=("lane",)),
        Frames(2, kinds=("semantic", "panoptic"), classes=CLASSES),
        Frames(2, kinds=kinds, classes=classes),
    ]
    if not says:
        assert Mixture(parts, [1, 1, 1]).classes == CLASSES
        return
    with pytest.raises(ConfigError) as caught:
        Mixture(parts, [1, 1, 1])
    assert str(caught.value).startswith("data.train.2: classes differ from those of data.train.1: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("weight", [0, -1, 0.04, math.nan, math.inf])
def test_a_weight_that_draws_nothing_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.train\.1\.weight: .* none of 10 samples"):
        Mixture(pictures(4, 10), [1, weight])


def test_every_set_needs_a_weight() -> None:
    for parts, weights in ((pictures(2, 2), [1]), ([], [])):
        with pytest.raises(ConfigError, match="at least one data set, each with one weight"):
            Mixture(parts, weights)


# ---------------------------------------------------------------- in batches and counts
def test_a_kind_that_a_sample_lacks_is_void_in_the_batch() -> None:
    mixture = Mixture([Frames(2, value=1), Frames(2, kinds=("drivable",))], [1, 1])
    loader = train_loader(
        mixture, TrainBatches(mixture, batch_size=4, seed=0), augment=Augment(),
        preprocess=PREPROCESS, target=RoadLaneTask(()).target, workers=0,
    )  # fmt: skip
    batch = next(opened(iter(loader)))
    for meta, drivable, lane in zip(batch.meta, *batch.target, strict=True):
        labelled = meta.path.startswith("1/")
        assert drivable.unique().tolist() == [int(labelled)]
        assert lane.unique().tolist() == [1 if labelled else 255]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_mixture_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    mixture = Mixture(pictures(6, 7), [0.5, 2])

    def paths(count: int) -> list[Any]:
        loader = train_loader(
            mixture, TrainBatches(mixture, batch_size=4, seed=3), augment=Augment(crop=(8, 8)),
            preprocess=PREPROCESS, target=SemanticTask(CLASSES).target, workers=count,
        )  # fmt: skip
        iterator = iter(loader)
        batches = list(itertools.islice(opened(iterator), 6))
        if count:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
        return [([meta.path for meta in item.meta], item.images.sum().item()) for item in batches]

    assert paths(workers) == paths(0)


def test_classes_are_counted_as_an_epoch_draws_them() -> None:
    parts = [
        Frames(3, value=0, kinds=("semantic",), classes=CLASSES),
        Frames(5, kinds=("lane",)),
        Frames(4, value=2, kinds=("semantic",), classes=CLASSES),
    ]
    counted = mixed_statistics(Mixture(parts, [2, 1, 0.5]))
    assert counted.names == ("low", "middle", "high")
    assert counted.pixels == (3 * 64 * 2, 0, 4 * 64 // 2)
    assert counted.frames == (6, 0, 2)
    assert counted.frame_pixels == (6 * 64, 0, 2 * 64)
    assert (counted.images, counted.void) == (8, 0)
    assert mixed_statistics(Mixture(parts[:1], [1])) == class_statistics(parts[0])
    with pytest.raises(ConfigError, match=r"choose from: lane"):
        mixed_statistics(Mixture(parts[1:2], [1]))
