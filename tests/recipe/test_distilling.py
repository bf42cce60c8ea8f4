"""Section `distill` of a recipe: what it accepts, and what a run makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtseg import checkpoint
from rtseg.cli.main import main
from rtseg.data.synthetic import Synthetic
from rtseg.errors import CheckpointError, ConfigError
from rtseg.evaluation import score
from rtseg.recipe import build, read_recipe, resume_recipe, run, train
from rtseg.training.distill import AnsweredTarget, DistilledTask
from rtseg.training.run_log import read_log

TEXT = """
model: {name: dabnet, depths: [1, 1]}
data:
  train: {name: synthetic, split: train, size: [32, 64], length: 4}
  val: {name: synthetic, split: val, size: [32, 64], length: 1}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 2, batch_size: 2, device: cpu, log_every: 1, threads: 1, save_every: 1}
optimizer: {name: sgd, lr: 1.0e-3}
schedule: {name: poly}
distill:
  teacher: {name: rtseg, path: TEACHER}
  pairs: [{student: svfm, teacher: lrfa}, {student: encoder.stem, teacher: encoder.stem, weight: 3}]
"""


def save_teacher(folder: Path, *, seed: int, classes: Sequence[Any] | None = None) -> None:
    torch.manual_seed(seed)
    names = tuple(Synthetic(split="train", size=(32, 64), length=1).classes)
    names = names if classes is None else tuple(classes)
    options: dict[str, Any] = {"rcad": False, "depths": [1, 2]}
    network = checkpoint.create_model("lsa_binet", len(names), **options)
    info = checkpoint.ModelInfo(
        "lsa_binet", options, "semantic", names, {"std": [60.0, 60.0, 60.0]}
    )
    checkpoint.save(folder, network.state_dict(), info)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_teacher(tmp_path / "teacher", seed=1)
    path = tmp_path / "own.yaml"
    path.write_text(TEXT.replace("TEACHER", str(tmp_path / "teacher")), encoding="utf-8")
    return path


def refusal(file: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, overrides))
    assert "\n" not in str(caught.value)
    return caught.value


# ---------------------------------------------------------------- what reaches the run
def test_a_run_learns_from_the_teacher_and_says_so(tmp_path: Path, file: Path) -> None:
    recipe = read_recipe(file)
    plan = build(recipe)
    assert isinstance(plan.task, DistilledTask)
    assert plan.task.options.mode == "both"
    assert [pair.weight for pair in plan.task.pairs] == [15.0, 3.0]
    hash_ = plan.task.teacher.sha256
    run(plan, recipe, tmp_path / "run")
    events = read_log(tmp_path / "run")
    assert events[0]["message"] == (
        f"learns from {tmp_path / 'teacher'} (sha256 {hash_[:12]}), mode both"
    )
    terms = [event["terms"] for event in events if event["event"] == "train"]
    assert set(terms[0]) == {"loss", "cwd", "ofa"}
    facts = checkpoint.read_info(tmp_path / "run" / "last").facts["teacher"]
    assert facts == {"source": str(tmp_path / "teacher"), "sha256": hash_}
    assert not any(module._forward_hooks for module in plan.model.modules())


def test_the_student_is_used_without_its_teacher(tmp_path: Path, file: Path) -> None:
    train(read_recipe(file), tmp_path / "run")
    train(read_recipe(file, ["distill.mode=none"]), tmp_path / "plain")
    shutil.rmtree(tmp_path / "teacher")
    for name in ("best", "last"):
        one, two = (checkpoint.read_weights(tmp_path / kind / name) for kind in ("run", "plain"))
        assert one.keys() == two.keys()
        loaded = checkpoint.load(tmp_path / "run" / name)
        result = score(loaded, Synthetic(split="val", size=(32, 64), length=1))
        assert 0 <= result.scores["miou"] <= 1
        assert not any(module._forward_hooks for module in loaded.model.modules())


def test_without_the_section_or_with_mode_none_a_run_is_the_plain_one(
    tmp_path: Path, file: Path
) -> None:
    """The teacher is not even read."""
    shutil.rmtree(tmp_path / "teacher")
    weights = []
    for number, override in enumerate(("distill=null", "distill.mode=none")):
        train(read_recipe(file, [override]), tmp_path / str(number))
        weights.append(checkpoint.read_weights(tmp_path / str(number) / "last"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_student_starts_as_the_plain_one(file: Path) -> None:
    plain, distilled = (build(read_recipe(file, changes)).model for changes in (
        ["distill.mode=none"], []))  # fmt: skip
    for one, two in zip(plain.parameters(), distilled.parameters(), strict=True):
        assert torch.equal(one, two)


def test_projections_follow_the_seed_of_the_run(file: Path) -> None:
    def first(*changes: str) -> torch.Tensor:
        task = build(read_recipe(file, changes)).task
        assert isinstance(task, DistilledTask)
        return next(task.projections.parameters())

    assert torch.equal(first(), first("train.seed=0"))
    assert not torch.equal(first(), first("train.seed=1"))


def test_hooks_are_removed_however_a_run_ends(tmp_path: Path, file: Path) -> None:
    recipe = read_recipe(file)
    plan = build(recipe)

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            raise KeyError

    with pytest.raises(KeyError):
        run(plan, recipe, tmp_path / "run", display=display)
    assert not any(module._forward_hooks for module in plan.model.modules())


def test_a_network_of_the_users_own_learns_too(tmp_path: Path, file: Path) -> None:
    own = checkpoint.create_model("dabnet", 19, depths=[1, 1])
    before = {key: value.clone() for key, value in own.state_dict().items()}
    recipe = read_recipe(file)
    run(build(recipe, model=own), recipe, tmp_path / "run")
    assert any(not torch.equal(value, before[key]) for key, value in own.state_dict().items())


# ---------------------------------------------------------------- going on
def test_a_run_goes_on_with_its_teacher_and_no_other(tmp_path: Path, file: Path) -> None:
    train(read_recipe(file, ["train.iterations=3"]), tmp_path / "whole")
    folder, recipe = tmp_path / "parts", read_recipe(file, ["train.iterations=3"])

    class StopError(Exception):
        pass

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 2:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, folder, display=display)
    save_teacher(tmp_path / "teacher", seed=2)
    with pytest.raises(CheckpointError, match="is another teacher") as caught:
        train(resume_recipe(folder), folder, resume=True)
    assert caught.value.where == str(tmp_path / "teacher")
    save_teacher(tmp_path / "teacher", seed=1)
    train(resume_recipe(folder), folder, resume=True)
    one, two = (checkpoint.read_weights(tmp_path / name / "last") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_that_stopped_before_its_first_save_takes_any_teacher(
    tmp_path: Path, file: Path
) -> None:
    folder, recipe = tmp_path / "run", read_recipe(file)
    folder.mkdir()
    (folder / "config.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    save_teacher(tmp_path / "teacher", seed=2)
    train(resume_recipe(folder), folder, resume=True)


# ---------------------------------------------------------------- answers on disk
def test_answers_are_kept_beside_the_run(tmp_path: Path, file: Path) -> None:
    recipe = read_recipe(file, [f"distill.cache={tmp_path / 'answers'}", "data.workers=1"])
    plan = build(recipe)
    assert not (tmp_path / "answers").exists()
    run(plan, recipe, tmp_path / "run")
    folders = list((tmp_path / "answers").iterdir())
    assert len(folders) == 1
    assert len(list(folders[0].iterdir())) == 4
    note = read_log(tmp_path / "run")[0]["message"]
    assert note.endswith(f"mode both; its answers are kept in {folders[0]}")
    assert plan.data.target is not None
    target = plan.task.target([plan.data.train[0]])
    assert not isinstance(target, AnsweredTarget)  # that of the validation
    train(read_recipe(file), tmp_path / "asks")
    one, two = (
        [event["loss"] for event in read_log(tmp_path / name) if event["event"] == "train"]
        for name in ("run", "asks")
    )
    assert one == pytest.approx(two, rel=1e-2)


def test_a_cache_refuses_augmentation(tmp_path: Path, file: Path) -> None:
    error = refusal(file, f"distill.cache={tmp_path}", "data.augment={flip: 0.5}")
    assert error.where == "distill.cache"
    assert "augmented" in error.what


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("distill.modee=cwd", "distill.modee is unknown. Did you mean 'mode'?"),
        ("distill.mode=kd", "distill.mode = 'kd' does not fit"),
        ("distill.teacher=null", "distill.teacher: None is no mapping"),
        ("distill={mode: cwd}", "distill.teacher: is missing; write {name: rtseg or segformer"),
        ("distill=1", "distill.teacher: is missing"),
        ("distill.teacher.name=segfomer", "distill.teacher.name: 'segfomer' is unknown; did you"),
        ("distill.teacher.pth=x", "distill.teacher.pth is unknown. Did you mean 'path'?"),
        ("distill.teacher={name: rtseg}", "distill.teacher.path is missing"),
        ("distill.pairs=[{student: svfm}]", "distill.pairs.0.teacher is missing"),
        ("distill.pairs=[a]", "distill.pairs: ['a'] is no list of pairs"),
        ("distill.pairs={student: svfm}", "is no list of pairs"),
        ("distill.pairs=[{student: svfm, teacher: lrfa, weight: true}]", "pairs.0.weight = True"),
        ("distill.pairs=[]", "distill.pairs: mode both compares features, and none are named"),
        (
            "distill.pairs=[{student: sv, teacher: lrfa}]",
            "pairs.0.student: the student has no",
        ),
        ("distill.theta=0", "distill.theta: 0.0 is not positive"),
        ("distill.ofa_weight=true", "distill.ofa_weight = True does not fit"),
    ],
)
def test_faults_of_the_section_are_named(file: Path, override: str, says: str) -> None:
    assert says in str(refusal(file, override))


def test_the_section_is_checked_before_the_network_is_built(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: Any, **__: Any) -> nn.Module:
        raise AssertionError

    monkeypatch.setattr("rtseg.recipe.building.create_model", built)
    refusal(file, "distill.teacher.name=nobody")
    refusal(file, "distill.theta=-1")


def test_classes_of_the_teacher_must_be_those_of_the_data(tmp_path: Path, file: Path) -> None:
    names = list(Synthetic(split="train", size=(32, 64), length=1).classes)
    save_teacher(tmp_path / "teacher", seed=1, classes=names[::-1])
    assert "class 0 of the teacher is 'bicycle', of the data 'road'" in str(refusal(file))
    save_teacher(tmp_path / "teacher", seed=1, classes=names[:5])
    assert "the teacher has 5 classes, the data 19" in str(refusal(file))


def test_the_command_line_trains_and_refuses(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["train", str(file), "--dry-run"]) == 0
    assert main(["train", str(file), "distill.mode=x", "--dry-run"]) == 2
    shutil.rmtree(tmp_path / "teacher")
    assert main(["train", str(file), "--dry-run"]) == 4
    segformer = f"distill.teacher={{name: segformer, path: {tmp_path / 'none'}}}"
    assert main(["train", str(file), segformer, "--dry-run"]) == 4
