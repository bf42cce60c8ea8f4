"""Batches are a function of seed and step: not of workers, processes, or where a run began."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rtseg.data.classification import RandomPart
from rtseg.data.loader import TrainBatches, TrainView, eval_loader, opened, train_loader
from rtseg.data.transforms import Augment, Preprocess
from rtseg.errors import ConfigError, DataError, RtsegError
from rtseg.structures import Batch, ImageMeta, Sample
from rtseg.tasks.semantic import SemanticTask
from training.toy import CLASSES, PREPROCESS, Pictures

TASK = SemanticTask(CLASSES)
AUGMENT = Augment(crop=(12, 12), scale_range=(0.5, 1.5), flip=0.5, brightness=0.2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def order(count: int, **options: Any) -> list[list[tuple[int, int]]]:
    settings: dict[str, Any] = {"batch_size": 4, "seed": 0, **options}
    return list(itertools.islice(TrainBatches(settings.pop("length", 10), **settings), count))


def first_batches(
    count: int, *, workers: int = 0, dataset: Any = None, start: int = 0, **options: Any
) -> list[Batch]:
    dataset = dataset if dataset is not None else Pictures(10)
    batches = TrainBatches(len(dataset), batch_size=4, seed=0, start=start)
    settings: dict[str, Any] = {"augment": AUGMENT, "preprocess": PREPROCESS, "target": TASK.target}
    loader = train_loader(dataset, batches, workers=workers, **{**settings, **options})
    iterator = iter(loader)
    try:
        return list(itertools.islice(opened(iterator), count))
    finally:
        if workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one.images, two.images)
        and torch.equal(one.target.labels, two.target.labels)
        and one.meta == two.meta
        and one.faults == two.faults
        for one, two in zip(first, second, strict=True)
    )


# ---------------------------------------------------------------- order
def test_an_epoch_is_a_permutation_without_its_last_incomplete_batch() -> None:
    batches = order(4)
    for epoch in range(2):
        drawn = list(itertools.chain(*batches[2 * epoch : 2 * epoch + 2]))
        assert [item[0] for item in drawn] == [epoch] * 8
        assert len({item[1] for item in drawn}) == 8
        assert {item[1] for item in drawn} <= set(range(10))


def test_every_image_is_drawn_when_the_batches_divide_the_set() -> None:
    assert sorted(item[1] for item in itertools.chain(*order(3, length=12))) == list(range(12))


def test_epochs_and_seeds_have_their_own_orders() -> None:
    images = [[item[1] for item in batch] for batch in order(6, length=12)]
    assert images[:3] != images[3:]
    assert order(3, length=12) != order(3, length=12, seed=1)
    assert order(3, length=12) == order(3, length=12)


@pytest.mark.parametrize("start", range(8))
def test_beginning_at_a_step_is_leaving_out_the_steps_before(start: int) -> None:
    assert order(5, start=start) == order(5 + start)[start:]
    assert order(6, start=start, parts=2) == order(6 + 2 * start, parts=2)[2 * start :]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("parts", [1, 2])
def test_processes_and_parts_share_each_batch(world: int, parts: int) -> None:
    whole = order(3, length=26, batch_size=8)
    shares = [
        order(3 * parts, length=26, batch_size=8, parts=parts, rank=rank, world=world)
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        mine = [share[step * parts : (step + 1) * parts] for share in shares]
        pieces = [piece for share in mine for piece in share]
        assert {len(piece) for piece in pieces} == {8 // (world * parts)}
        assert sorted(itertools.chain(*pieces)) == sorted(batch)


def test_a_batch_that_cannot_be_filled_or_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 3"):
        TrainBatches(3, batch_size=4, seed=0)
    with pytest.raises(ConfigError, match=r"multiple of 6"):
        TrainBatches(10, batch_size=4, seed=0, world=3, parts=2)


# ---------------------------------------------------------------- training batches
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    expected = first_batches(6)
    assert same(first_batches(6, workers=workers), expected)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_begins_later_yields_the_same_batches(workers: int) -> None:
    assert same(first_batches(3, workers=workers, start=3), first_batches(6)[3:])


def test_an_image_is_augmented_anew_in_every_epoch() -> None:
    view = TrainView(Pictures(10), AUGMENT, PREPROCESS, seed=0)
    first, again, later = (view[epoch, 3] for epoch in (0, 0, 1))
    assert not isinstance(first, RtsegError)
    assert not isinstance(again, RtsegError)
    assert not isinstance(later, RtsegError)
    assert (first.sample.image == again.sample.image).all()
    assert (first.sample.image != later.sample.image).any()


def test_reading_does_not_touch_the_random_state_of_the_run() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first_batches(3)
    loader = eval_loader(Pictures(2), preprocess=PREPROCESS, target=TASK.target)
    assert len(list(opened(loader))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_are_as_large_as_the_padded_input() -> None:
    batch = first_batches(1, augment=Augment(), preprocess=Preprocess(stride=32))[0]
    assert tuple(batch.images.shape) == (4, 3, 32, 32)
    assert tuple(batch.target.labels.shape) == (4, 32, 32)
    assert (batch.target.labels[:, 16:] == 255).all()
    assert (batch.target.labels[:, :16, :20] < 3).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_replaced_by_the_next_and_named(workers: int) -> None:
    damaged = Pictures(10, bad=(3, 4))
    batches = first_batches(2, workers=workers, dataset=damaged)
    whole = first_batches(2)
    for batch, complete in zip(batches, whole, strict=True):
        for new, old in zip(batch.meta, complete.meta, strict=True):
            assert new.path == {"picture/3": "picture/5", "picture/4": "picture/5"}.get(
                old.path, old.path
            )
    named = {fault for batch in batches for fault in batch.faults}
    drawn = {meta.path for batch in whole for meta in batch.meta}
    assert "picture/3: cannot be read" in named or "picture/3" not in drawn
    assert {fault.split(":")[0] for fault in named} <= {"picture/3", "picture/4"}
    assert named


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_a_readable_image_ends_with_one_sentence(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        first_batches(1, workers=workers, dataset=Pictures(10, bad=range(10)))
    assert "20 images in a row cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


class Refusing(Pictures):
    """Raise an error that is no unreadable file."""

    def __getitem__(self, index: int, /) -> Sample:
        raise ConfigError("the root is wrong", where="data.train.root")


@pytest.mark.parametrize("workers", [0, 1])
def test_any_error_of_ours_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(ConfigError) as caught:
        first_batches(1, workers=workers, dataset=Refusing(10))
    assert str(caught.value) == "data.train.root: the root is wrong"
    assert multiprocessing.active_children() == []


def test_a_label_that_is_no_class_is_named_with_its_image() -> None:
    with pytest.raises(DataError, match=r"picture/\d: label 2 is none of the 2 classes"):
        first_batches(1, target=SemanticTask(CLASSES[:2]).target, workers=1)


class Mixed(Pictures):
    """Images of two sizes."""

    def __getitem__(self, index: int, /) -> Sample:
        return Pictures(10, size=(16, 20) if index % 2 else (16, 28))[index]


def test_images_of_different_sizes_need_a_crop() -> None:
    with pytest.raises(ConfigError, match=r"differ in size.*data\.augment\.crop"):
        first_batches(2, dataset=Mixed(10), augment=Augment())


def test_images_whose_sizes_become_equal_by_padding_need_no_crop() -> None:
    preprocess = Preprocess(stride=16)  # 16 x 20 and 16 x 28 become 16 x 32
    batch = first_batches(2, dataset=Mixed(10), augment=Augment(), preprocess=preprocess)[1]
    assert tuple(batch.images.shape) == (4, 3, 16, 32)
    assert {meta.input_size for meta in batch.meta} == {(16, 20), (16, 28)}


def test_the_size_rule_makes_images_of_different_sizes_fit() -> None:
    preprocess = Preprocess(stride=4, size=(14, 18))
    batch = first_batches(2, dataset=Mixed(10), augment=Augment(), preprocess=preprocess)[1]
    assert tuple(batch.images.shape) == (4, 3, 16, 20)
    assert tuple(batch.target.labels.shape) == (4, 16, 20)


# ---------------------------------------------------------------- evaluation batches
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("length", range(1, 8))
def test_every_image_is_evaluated_exactly_once(length: int, world: int) -> None:
    paths = []
    for rank in range(world):
        loader = eval_loader(
            Pictures(length), preprocess=PREPROCESS, target=TASK.target, rank=rank, world=world
        )
        paths += [meta.path for batch in opened(loader) for meta in batch.meta]
    assert sorted(paths) == [f"picture/{index}" for index in range(length)]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_keeps_labels_at_native_size(workers: int) -> None:
    data = Pictures(3, size=(17, 19))
    loader = eval_loader(
        data, preprocess=PREPROCESS, target=TASK.target, batch_size=2, workers=workers
    )
    batches = list(opened(loader))
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 20, 20), (1, 3, 20, 20)]
    labels = [target.labels[0] for batch in batches for target in batch.target]
    for index, label in enumerate(labels):
        assert torch.equal(label, torch.from_numpy(data[index].labels["semantic"]).long())
    assert multiprocessing.active_children() == []


def test_an_unreadable_image_is_not_left_out_of_an_evaluation() -> None:
    loader = eval_loader(
        Pictures(3, bad=(1,)), preprocess=PREPROCESS, target=TASK.target, workers=1
    )
    with pytest.raises(DataError) as caught:
        list(opened(loader))
    assert str(caught.value) == "picture/1: cannot be read"


def test_evaluation_batches_of_different_sizes_are_refused() -> None:
    loader = eval_loader(Mixed(4), preprocess=PREPROCESS, target=TASK.target, batch_size=2)
    with pytest.raises(ConfigError, match="differ in size"):
        list(opened(loader))


def test_evaluation_can_compare_at_the_size_of_the_input() -> None:
    preprocess = Preprocess(stride=4, size=(8, 10), letterbox=(12, 12), score_at="input")
    data = Pictures(2, size=(16, 20))
    batch = next(opened(iter(eval_loader(data, preprocess=preprocess, target=TASK.target))))
    assert tuple(batch.images.shape) == (1, 3, 12, 12)
    assert batch.meta == (ImageMeta("picture/0", (8, 10), (8, 10), (4, 2), (2, 1)),)
    labels = batch.target[0].labels[0]
    assert tuple(labels.shape) == (8, 10)
    # Nearest neighbour takes one of the four pixels under each.
    native = torch.from_numpy(data[0].labels["semantic"]).long()
    corners = native.view(8, 2, 10, 2).permute(0, 2, 1, 3).reshape(8, 10, 4)
    assert (labels[..., None] == corners).any(-1).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_augmentation_that_does_not_fit_the_labels_ends_with_one_sentence(workers: int) -> None:
    with pytest.raises(ConfigError) as caught:
        first_batches(1, augment=RandomPart(size=16), workers=workers)
    assert "cannot change the semantic labels" in str(caught.value)
    assert multiprocessing.active_children() == []
