"""Every family learns from a teacher, not BSDNet alone: the pairs of docs/distillation.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.toy_data import Stages
from rtseg.checkpoint import create_model
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.recipe import read_recipe, train
from rtseg.structures import Batch, Sample
from rtseg.tasks import TASKS
from rtseg.training.distill import DistilledTask
from rtseg.training.distill_options import DistillOptions, Pair
from rtseg.training.run_log import read_log
from training.pupils import PREPROCESS, teacher

# Task, and the modules at 1/16 (or next to it) and 1/32 that follow the third and fourth stage.
STUDENTS = {
    "bsdnet_s": ("semantic", "backbone.fcb3", "backbone.fcb5"),
    "sctnet_s": ("semantic", "backbone.fcb3", "backbone.fcb5"),
    "dabnet": ("semantic", "svfm", "encoder.cat3"),
    "lsa_binet": ("semantic", "svfm", "encoder.cat3"),
    "bisegunet_edge": ("semantic", "encoder3", "encoder4"),
    "bisenetformer_stdc1": ("semantic_masks", "backbone.stage4", "backbone.stage5"),
    "twinmixing_tiny": ("road_lane", "encoder.stage3", "encoder.neck"),
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("rtseg.training.run_log._tensorboard", lambda *_: None)
    monkeypatch.setattr("rtseg.training.run_log.draw_curves", lambda _: None)
    yield
    torch.set_num_threads(threads)


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    labels = {
        "semantic": rng.integers(0, 19, (64, 64), dtype=np.uint8),
        "drivable": rng.integers(0, 2, (64, 64), dtype=np.uint8),
        "lane": rng.integers(0, 2, (64, 64), dtype=np.uint8),
    }
    return [Sample(np.zeros((64, 64, 3), np.float32), labels) for _ in range(2)]


@pytest.mark.parametrize("name", STUDENTS)
def test_features_of_every_family_follow_the_teacher(name: str) -> None:
    kind, third, fourth = STUDENTS[name]
    torch.manual_seed(0)
    classes = () if kind == "road_lane" else CITYSCAPES_CLASSES
    student = create_model(name, len(classes) or None).train()
    plain = TASKS[kind](classes)
    mode = "both" if kind == "semantic" else "cwd"
    task = DistilledTask(
        plain, student, teacher(Stages(19)), preprocess=PREPROCESS,
        options=DistillOptions(mode, (Pair(third, "stage3"), Pair(fourth, "stage4"))),
    )  # fmt: skip
    batch = Batch(torch.randn(2, 3, 64, 64), task.target(samples()), ())
    torch.manual_seed(1)
    terms = task.training_step(student, batch)
    torch.manual_seed(1)
    expected = plain.training_step(student, batch)
    added = ["cwd", "ofa"] if mode == "both" else ["cwd"]
    assert list(terms) == [*expected, *added]
    terms["cwd"].backward()
    for path in (third, fourth):
        grads = [item.grad for item in student.get_submodule(path).parameters()]
        assert not grads or any(grad is not None and grad.any() for grad in grads)
    assert any(item.grad is not None and item.grad.any() for item in student.parameters())


@pytest.mark.slow
def test_weights_become_binary_beside_a_teacher(tmp_path: Path) -> None:
    """Sections binarize and distill go together; the penalty and both terms are logged."""
    small = [
        "train.iterations=2", "train.batch_size=2", "train.device=cpu", "train.log_every=1",
        "data.train.size=[64,64]", "data.train.length=4", "data.val=null", "data.workers=0",
        "train.precision=fp32",
    ]  # fmt: skip
    train(read_recipe("bsdnet/synthetic", small), tmp_path / "teacher")
    distill = (
        f"distill={{teacher: {{name: rtseg, path: {tmp_path / 'teacher'}}}, "
        "pairs: [{student: encoder4, teacher: backbone.fcb5}]}"
    )
    train(read_recipe("bisegunet/synthetic_edge", [*small, distill]), tmp_path / "run")
    events = [event for event in read_log(tmp_path / "run") if event["event"] == "train"]
    plain = read_recipe("bisegunet/synthetic_edge", small)
    train(plain, tmp_path / "plain")
    alone = [event for event in read_log(tmp_path / "plain") if event["event"] == "train"]
    assert set(events[0]["terms"]) == {*alone[0]["terms"], "cwd", "ofa"}
    assert events[0]["terms"]["loss"] == alone[0]["terms"]["loss"]
