"""Runs with a teacher: exact resume, and what is left on disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import checkpoint
from rtseg.errors import ConfigError, DataError
from rtseg.training.distill import AnsweredTarget, DistilledTask
from rtseg.training.distill_cache import AnswerCache, CachedTarget, answer_cache, fill
from rtseg.training.options import Plan
from rtseg.training.run_log import read_log
from training.pupils import pupil, pupil_plan
from training.test_loop import Stop, assert_same_run, differing, state_of
from training.toy import Augment, Pictures, Preprocess, Toy, run, toy_plan

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("rtseg.training.run_log._tensorboard", lambda *_: None)
    monkeypatch.setattr("rtseg.training.run_log.draw_curves", lambda _: None)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- exact resume
VARIANTS: dict[str, dict[str, Any]] = {
    "both": {},
    "features": {"mode": "cwd", "channels_last": True},
    "scores": {"mode": "ofa", "accumulate": 2},
    "average": {"ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_goes_on_equals_one_that_never_stopped(tmp_path: Path, variant: str) -> None:
    options: dict[str, Any] = {"iterations": 6, "save_every": 1, **VARIANTS[variant]}
    options |= {"val_every": 3, "val": Pictures(3)}

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 4:
            raise Stop

    run(pupil_plan(**options), tmp_path / "whole")
    with pytest.raises(Stop):
        run(pupil_plan(**options), tmp_path / "parts", display=display)
    assert state_of(tmp_path / "parts")["step"] == 3
    torch.manual_seed(12345)
    run(pupil_plan(**options), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    terms = [event["terms"] for event in read_log(tmp_path / "whole") if event["event"] == "train"]
    mode = options.get("mode", "both")
    assert set(terms[0]) == {"loss"} | ({"cwd", "ofa"} if mode == "both" else {mode})


def test_projections_are_trained_and_kept_in_the_training_state_alone(tmp_path: Path) -> None:
    plan = pupil_plan(iterations=3, ema_decay=0.9, val=Pictures(2))
    assert isinstance(plan.task, DistilledTask)
    before = plan.task.projections[0].weight.clone()  # type: ignore[operator, union-attr]
    run(plan, tmp_path / "distilled")
    run(toy_plan(iterations=3, ema_decay=0.9, val=Pictures(2)), tmp_path / "plain")
    kept = state_of(tmp_path / "distilled")["task"]
    assert sorted(kept) == [
        f"projections.{n}.{part}" for n in (0, 1) for part in ("bias", "weight")
    ]
    assert torch.equal(kept["projections.0.weight"], plan.task.projections[0].weight)  # type: ignore[arg-type]
    assert not torch.equal(kept["projections.0.weight"], before)
    for name in ("best", "last"):
        one, two = (
            checkpoint.read_weights(tmp_path / kind / name) for kind in ("plain", "distilled")
        )
        assert {key: value.shape for key, value in one.items()} == {
            key: value.shape for key, value in two.items()
        }
        assert differing(one, two) != []
        checkpoint.load(tmp_path / "distilled" / name, model=Toy())
    assert sorted(path.name for path in (tmp_path / "distilled" / "best").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", [True, False])
def test_teacher_and_student_lie_alike_in_memory(tmp_path: Path, layout: bool) -> None:
    plan = pupil_plan(iterations=1, channels_last=layout)
    run(plan, tmp_path)
    assert isinstance(plan.task, DistilledTask)
    for weight in (plan.task.teacher.network.deep.weight, plan.model.first.weight):  # type: ignore[union-attr]
        assert weight.is_contiguous(memory_format=torch.channels_last) is layout  # type: ignore[operator]


@pytest.mark.slow
def test_a_compiled_run_goes_on_exactly_and_equals_the_plain_one(tmp_path: Path) -> None:
    def plan(*, compiled: bool) -> Plan:
        return pupil_plan(
            model=pupil(), iterations=4, save_every=2, ema_decay=0.9, compile=compiled
        )  # dropout would draw other numbers

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 3:
            raise Stop

    run(plan(compiled=False), tmp_path / "eager")
    run(plan(compiled=True), tmp_path / "whole")
    with pytest.raises(Stop):
        run(plan(compiled=True), tmp_path / "parts", display=display)
    run(plan(compiled=True), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    first, second = (
        [event["terms"]["cwd"] for event in read_log(tmp_path / name) if event["event"] == "train"]
        for name in ("eager", "whole")
    )
    assert first == pytest.approx(second, rel=1e-3)


# ---------------------------------------------------------------- answers on disk
def cached_plan(folder: Path, **options: Any) -> tuple[Plan, AnswerCache]:
    plan = pupil_plan(**{"iterations": 4, "augment": Augment(), **options})
    assert isinstance(plan.task, DistilledTask)
    cache = answer_cache(plan.task, plan.data, str(folder))
    data = replace(plan.data, target=CachedTarget(cache, plan.task.target))
    return replace(plan, data=data), cache


def filled(plan: Plan, cache: AnswerCache) -> int:
    assert isinstance(plan.task, DistilledTask)
    return fill(cache, plan.task, plan.data, device=CPU)


@pytest.mark.parametrize(("mode", "workers"), [("both", 0), ("cwd", 2), ("ofa", 0)])
def test_a_run_with_kept_answers_equals_one_that_asks(
    tmp_path: Path, mode: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: dict[str, Any] = {"mode": mode, "workers": workers, "val": Pictures(2)}
    plain = pupil_plan(iterations=4, augment=Augment(), **shared)
    run(plain, tmp_path / "asks")
    plan, cache = cached_plan(tmp_path / "cache", **shared)
    assert filled(plan, cache) == 10
    assert filled(plan, cache) == 0
    assert len(list(cache.folder.iterdir())) == 10
    assert isinstance(plan.task, DistilledTask)
    monkeypatch.setattr(plan.task.teacher.network, "forward", None)
    run(plan, tmp_path / "reads")
    one, two = (
        [event["terms"] for event in read_log(tmp_path / name) if event["event"] == "train"]
        for name in ("asks", "reads")
    )
    for asks, reads in zip(one, two, strict=True):
        assert reads == pytest.approx(asks, rel=2e-2)  # float16 moves the features a little
        assert reads["loss"] == pytest.approx(asks["loss"], rel=1e-3)


def test_answers_have_the_shapes_of_the_teacher(tmp_path: Path) -> None:
    plan, cache = cached_plan(tmp_path)
    filled(plan, cache)
    assert plan.data.target is not None
    samples = [plan.data.train[number] for number in (3, 4)]
    augmented = [replace(item, image=item.image.astype(np.float32)) for item in samples]
    target = plan.data.target(augmented)
    assert isinstance(target, AnsweredTarget)
    assert isinstance(plan.task, DistilledTask)
    images = [plan.data.preprocess.fit(item.image).image for item in samples]
    asked = plan.task.ask(torch.stack(images))
    for kept, wanted in zip(
        (*target.answer.maps, target.answer.logits), (*asked.maps, asked.logits), strict=True
    ):
        assert kept.dtype == torch.float32
        torch.testing.assert_close(kept, wanted, rtol=1e-3, atol=1e-3)
    assert torch.equal(target.target.labels[1], plan.task.target(samples[1:]).labels[0])


def test_answers_of_other_teachers_pixels_or_sizes_are_others(tmp_path: Path) -> None:
    plan, cache = cached_plan(tmp_path)
    task = plan.task
    assert isinstance(task, DistilledTask)
    other = replace(plan.data, preprocess=Preprocess(stride=4))
    wise = replace(task.teacher, sha256="0" * 64)
    folders = {cache.folder, answer_cache(task, other, str(tmp_path)).folder}
    for mode in ("cwd", "ofa"):
        folders.add(cached_plan(tmp_path, mode=mode)[1].folder)
    task.teacher = wise
    folders.add(answer_cache(task, plan.data, str(tmp_path)).folder)
    assert len(folders) == 5
    image = plan.data.train[0].image
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    paths = {cache.path(item) for item in (image, changed, image.reshape(20, 16, 3))}
    assert len(paths) == 3
    assert cache.path(image) == cache.path(image.copy())


def test_changing_images_are_refused(tmp_path: Path) -> None:
    for augment in (Augment(flip=0.5), Augment(crop=(8, 8))):
        with pytest.raises(ConfigError, match="augmented") as caught:
            cached_plan(tmp_path, augment=augment)
        assert caught.value.where == "distill.cache"


def test_a_damaged_or_missing_answer_is_named(tmp_path: Path) -> None:
    plan, cache = cached_plan(tmp_path)
    filled(plan, cache)
    path = next(cache.folder.iterdir())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read") as caught:
        run(plan, tmp_path / "run")
    assert caught.value.where == str(path)
    path.unlink()
    assert filled(plan, cache) == 1
    run(plan, tmp_path / "again")


def test_numbers_that_do_not_fit_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    plan, cache = cached_plan(tmp_path)
    assert isinstance(plan.task, DistilledTask)
    plan.task.teacher.network.deep.weight.fill_(1e6)  # type: ignore[operator, union-attr]
    with pytest.raises(DataError, match="does not fit into float16"):
        filled(plan, cache)
    assert list(cache.folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    plan, cache = cached_plan(tmp_path / "file")
    with pytest.raises(DataError, match=r"cannot be made.*choose another distill\.cache"):
        filled(plan, cache)

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    plan, cache = cached_plan(tmp_path / "full")
    monkeypatch.setattr("rtseg.training.distill_cache.save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        filled(plan, cache)
    assert list(cache.folder.iterdir()) == []


def test_an_unreadable_image_is_replaced_as_in_training(tmp_path: Path) -> None:
    plan, cache = cached_plan(tmp_path, train=Pictures(10, bad=(2,)), max_bad=0.2)
    assert filled(plan, cache) == 9
    run(plan, tmp_path / "run")
