"""Augmentation on the device gives what the loader gives; here the device is the CPU, or a GPU."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.data.batch_augment import BatchAugment, PendingBatch, way_to
from rtseg.data.driving import Driving
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.data.synthetic import Synthetic
from rtseg.data.transforms import Augment, Preprocess
from rtseg.errors import ConfigError, DataError
from rtseg.structures import Batch, Sample
from rtseg.tasks.panoptic import PanopticTask
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.options import Plan
from training.toy import CLASSES, PREPROCESS, Pictures, run, toy_plan

SCENES = Synthetic(size=(40, 64), length=8)
CPU = torch.device("cpu")
COLORS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("rtseg.training.run_log._tensorboard", lambda *_: None)
    monkeypatch.setattr("rtseg.training.run_log.draw_curves", lambda _: None)
    yield
    torch.set_num_threads(threads)


def batches(
    on: Any,
    augment: Augment,
    *,
    preprocess: Preprocess = PREPROCESS,
    dataset: Any = SCENES,
    task: Any = None,
    workers: int = 0,
    count: int = 3,
    start: int = 0,
    device: torch.device = CPU,
) -> list[Batch]:
    way = way_to(augment, preprocess, on=on, device=device)
    target = (task or SemanticTask(SCENES.classes)).target
    loader = train_loader(
        dataset, TrainBatches(len(dataset), batch_size=4, seed=1, start=start),
        augment=way.augment, collate=way.collate, preprocess=preprocess, target=target,
        workers=workers,
    )  # fmt: skip
    iterator = iter(loader)
    try:
        return list(itertools.islice(map(way.finish, opened(iterator)), count))
    finally:
        if workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors of a target, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in tensors(item)]


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    for one, two in zip(first, second, strict=True):
        assert one.images.dtype == two.images.dtype == torch.float32
        assert torch.equal(one.images, two.images)
        assert type(one.target) is type(two.target)
        pairs = zip(tensors(one.target), tensors(two.target), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        assert (one.meta, one.faults) == (two.meta, two.faults)


WAYS = {
    "nothing": (Augment(), PREPROCESS),
    "scales": (Augment(crop=(48, 48), scales=(0.5, 1.0, 1.75), flip=0.5), PREPROCESS),
    "range": (Augment(crop=(24, 36), scale_range=(0.5, 2.0), flip=0.5), PREPROCESS),
    "colors": (Augment(crop=(32, 32), scale_range=(0.5, 2.0), flip=0.5, **COLORS), PREPROCESS),
    "some colors": (Augment(crop=(32, 32), recolor=0.5, **COLORS), PREPROCESS),
    "distortion": (
        Augment(crop=(32, 60), short_side=(30, 50), max_long_side=70, distort=True,
                pad_value=(128, 128, 128), max_class_share=0.6), PREPROCESS,
    ),
    "letterbox": (
        Augment(flip=0.5, scale_range=(0.5, 1.5)),
        Preprocess(stride=8, size=(24, 30), letterbox=(32, 32), mask_resize="max"),
    ),
    "size of the evaluation": (
        Augment(base_size=(20, 32), crop=(20, 30)),
        Preprocess(stride=16, size=(64, 64), resize="evaluation"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_on_the_cpu_batches_are_the_same_bit_for_bit(name: str) -> None:
    augment, preprocess = WAYS[name]
    first, second = (
        batches(on, augment, preprocess=preprocess) for on in ("loader", "device")
    )  # fmt: skip
    assert_same(first, second)
    assert first[0].images.std() > 0


@pytest.mark.parametrize("task", [PanopticTask(SCENES.classes), RoadLaneTask(SCENES.classes)])
def test_targets_of_every_form_are_the_same(task: Any) -> None:
    augment = WAYS["range"][0]
    assert_same(*(batches(on, augment, task=task) for on in ("loader", "device")))


def test_reading_processes_send_images_as_they_were_read() -> None:
    augment = Augment(crop=(12, 12), scales=(0.5, 2.0))
    way = way_to(augment, PREPROCESS, on="device", device=CPU)
    loader = train_loader(
        SCENES, TrainBatches(8, batch_size=4, seed=1), augment=way.augment, collate=way.collate,
        preprocess=PREPROCESS, target=SemanticTask(SCENES.classes).target, workers=0,
    )  # fmt: skip
    pending = next(opened(iter(loader)))
    assert isinstance(pending, PendingBatch)
    assert {(image.dtype, image.shape) for image in pending.images} == {(torch.uint8, (3, 40, 64))}
    for image, meta in zip(pending.images, pending.meta, strict=True):
        scene = SCENES[int(meta.path.rpartition("/")[2])].image
        assert np.array_equal(image.permute(1, 2, 0).numpy(), scene)
    assert pending.target.labels.shape == (4, 12, 12)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers_or_on_where_a_run_began(workers: int) -> None:
    augment = WAYS["colors"][0]
    whole = batches("device", augment, count=5)
    assert_same(batches("device", augment, count=3, start=2, workers=workers), whole[2:])
    assert multiprocessing.active_children() == []


class Sizes(Pictures):
    """Images of two sizes."""

    def __getitem__(self, index: int, /) -> Sample:
        return Pictures(10, size=(16, 20) if index % 2 else (22, 28))[index]


def test_images_of_different_sizes_become_equal_or_are_refused() -> None:
    options: dict[str, Any] = {"dataset": Sizes(10), "task": SemanticTask(CLASSES)}
    augment = Augment(crop=(12, 14), scales=(0.5, 1.0))
    assert_same(*(batches(on, augment, **options) for on in ("loader", "device")))
    with pytest.raises(ConfigError, match=r"differ in size.*data\.augment\.crop"):
        batches("device", Augment(), **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_faults_are_replaced_and_named_alike(workers: int) -> None:
    options: dict[str, Any] = {
        "dataset": Pictures(10, bad=(3, 4)), "task": SemanticTask(CLASSES), "workers": workers,
    }  # fmt: skip
    first, second = (batches(on, Augment(), **options) for on in ("loader", "device"))
    assert_same(first, second)
    assert any(batch.faults for batch in first)
    with pytest.raises(DataError, match="20 images in a row"):
        batches("device", Augment(), **{**options, "dataset": Pictures(10, bad=range(10))})
    with pytest.raises(DataError, match=r"label 2 is none of the 2 classes"):
        batches("device", Augment(), dataset=Pictures(9), task=SemanticTask(CLASSES[:2]))


def test_other_augmentations_stay_in_the_loader() -> None:
    with pytest.raises(ConfigError, match=r"data\.augment_on: the device cannot do what Driving"):
        way_to(Driving(), PREPROCESS, on="device", device=CPU)
    assert way_to(Driving(), PREPROCESS, on="loader", device=CPU).augment == Driving()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_the_same_and_goes_on_exactly(tmp_path: Path, workers: int) -> None:
    class StopError(Exception):
        pass

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 3:
            raise StopError

    options: dict[str, Any] = {
        "augment": Augment(crop=(12, 12), scale_range=(0.5, 1.5), flip=0.5, **COLORS),
        "iterations": 5, "save_every": 1, "workers": workers,
    }  # fmt: skip

    def on_device() -> Plan:
        plan = toy_plan(**options)
        return replace(plan, data=replace(plan.data, augment_on="device"))

    run(toy_plan(**options), tmp_path / "loader")
    run(on_device(), tmp_path / "whole")
    with pytest.raises(StopError):
        run(on_device(), tmp_path / "parts", display=display)
    run(on_device(), tmp_path / "parts", resume=True)
    weights = [
        (tmp_path / name / "last" / "model.safetensors").read_bytes()
        for name in ("loader", "whole", "parts")
    ]
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.gpu
def test_on_a_gpu_labels_are_equal_and_pixels_differ_by_one_level_at_most() -> None:
    preprocess = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), stride=4)
    augment = Augment(crop=(32, 32), scale_range=(0.5, 2.0), flip=0.5)
    first = batches("loader", augment, preprocess=preprocess)
    second = batches("device", augment, preprocess=preprocess, device=torch.device("cuda"))
    for one, two in zip(first, second, strict=True):
        assert two.images.device.type == "cuda"
        assert (one.images - two.images.cpu()).abs().max() <= 1
        assert torch.equal(one.target.labels, two.target.labels)


def test_images_are_changed_where_the_device_says() -> None:
    augment, preprocess = Augment(crop=(12, 12), scales=(0.5,), **COLORS), PREPROCESS
    meta = preprocess.measure((12, 12))
    change, _ = augment.draw(Pictures(1)[0], np.random.default_rng(0))
    image = torch.zeros(3, 16, 20, dtype=torch.uint8)
    pending = PendingBatch((image,), (change,), None, (meta,))
    moved = BatchAugment(augment, preprocess, torch.device("meta"))(pending)
    assert moved.images.shape == (1, 3, 12, 12)
    assert moved.images.device.type == "meta"
