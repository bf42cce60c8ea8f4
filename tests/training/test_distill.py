"""Distillation: its terms against versions written out by hand, and what it leaves untouched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rtseg.checkpoint import create_model
from rtseg.data.transforms import Preprocess
from rtseg.losses.distillation import ofa_distillation
from rtseg.structures import Batch, ImageMeta, Sample, SemanticOutput, SemanticTarget
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.distill import DistilledTask, Renormalize
from rtseg.training.distill_options import DistillOptions, Pair
from rtseg.training.session import Step
from training.pupils import PAIRS, Wise, lesson, pupil, teacher
from training.toy import CLASSES, PREPROCESS, Toy


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def batch(size: tuple[int, int] = (12, 16)) -> Batch:
    labels = torch.randint(0, 3, (2, *size))
    labels[0, :3] = 255
    return Batch(torch.randn(2, 3, *size), SemanticTarget(labels), ())


def features(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what the layers of the toy networks give, computed without hooks."""
    if isinstance(network, Toy):
        norm = network.norm(network.first(images))
        return {"norm": norm, "last": network.last(F.relu(norm))}
    assert isinstance(network, Wise)
    deep = network.deep(images)
    wide = network.wide(network.norm(deep).relu())
    return {"deep": deep, "wide": wide, "logits": network.last(wide)}


def slow_feature_loss(own: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Compare maps of one size, channel by channel."""
    total = torch.zeros((), dtype=torch.float64)
    for c in range(own.shape[1]):
        s, t = own[:, c].double(), wanted[:, c].double()
        s = (s - s.mean()) / (s.std() + 1e-6) * t.std() + t.mean()
        for n in range(own.shape[0]):
            p, q = ((x[n].flatten() / temperature).softmax(0) for x in (s, t))
            total = total + (q * (q / p).log()).sum()
    return temperature**2 * total / own.shape[0] / own.shape[1]


# ---------------------------------------------------------------- the terms
@pytest.mark.parametrize("temperature", [4.0, 1.0])
def test_feature_loss_is_projection_resize_statistics_and_divergence(temperature: float) -> None:
    student, given, wise = pupil(), batch(), teacher()
    for value in wise.network.parameters():
        value.mul_(4)  # where maps hardly vary, all temperatures give the same
    task = lesson(student, wise, mode="cwd", cwd_temperature=temperature)
    terms = task.training_step(student, given)
    own = features(student, given.images)  # batch statistics, as in the step
    wanted = features(task.teacher.network, given.images)
    expected = torch.zeros((), dtype=torch.float64)
    for pair, layer in zip(PAIRS, task.projections, strict=True):
        assert isinstance(layer, nn.Conv2d)
        projected = F.conv2d(own[pair.student], layer.weight, layer.bias)
        target = wanted[pair.teacher]
        resized = F.interpolate(
            projected, size=target.shape[-2:], mode="bilinear", align_corners=False
        )
        expected = expected + pair.weight * slow_feature_loss(resized, target, temperature)
    assert list(terms) == ["loss", "cwd"]
    assert terms["cwd"].item() == pytest.approx(expected.item(), rel=1e-4)
    plain = SemanticTask(CLASSES).training_step(student, given)
    assert terms["loss"].item() == plain["loss"].item()


def test_score_loss_compares_on_the_grid_of_the_teacher() -> None:
    """Labels of 12x16 reach 3x4: each cell takes the pixel right below and beside its middle."""
    student, given = pupil(), batch()
    task = lesson(
        student, mode="ofa", ofa_weight=0.7, theta=1.3, ofa_temperature=2.0, nontarget_power=True
    )
    terms = task.training_step(student, given)
    own = features(student, given.images)["last"]
    wanted = features(task.teacher.network, given.images)["logits"]
    assert (own.shape[-2:], wanted.shape[-2:]) == ((6, 8), (3, 4))
    expected = ofa_distillation(
        F.interpolate(own, size=(3, 4), mode="bilinear", align_corners=False),
        wanted,
        given.target.labels[:, 2::4, 2::4],
        theta=1.3,
        temperature=2.0,
        nontarget_power=True,
    )
    assert list(terms) == ["loss", "ofa"]
    assert terms["ofa"].item() == pytest.approx(0.7 * expected.item(), rel=1e-5)
    assert (given.target.labels[:, 2::4, 2::4] == 255).any()


def test_both_modes_add_both_terms_and_change_no_other() -> None:
    student, given = pupil(), batch()
    found = {
        mode: lesson(student, mode=mode).training_step(student, given)
        for mode in ("cwd", "ofa", "both")
    }
    assert list(found["both"]) == ["loss", "cwd", "ofa"]
    for name, mode in (("cwd", "cwd"), ("ofa", "ofa"), ("loss", "ofa")):
        assert found["both"][name].item() == pytest.approx(found[mode][name].item(), rel=1e-5)


def test_what_was_once_answered_replaces_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.training.distill import AnsweredTarget

    student, given = pupil(), batch()
    task = lesson(student)
    asked = task.training_step(student, given)
    answer = task.ask(given.images)
    assert [tuple(item.shape) for item in answer.maps] == [(2, 6, 6, 8), (2, 5, 3, 4)]
    assert answer.logits.shape == (2, 3, 3, 4)
    monkeypatch.setattr(task.teacher.network, "forward", None)
    answered = given._replace(target=AnsweredTarget(given.target, answer))
    kept = task.training_step(student, answered)
    assert {name: value.item() for name, value in kept.items()} == {
        name: value.item() for name, value in asked.items()
    }


def test_gradients_reach_student_and_projections_alone() -> None:
    for mode, trained in (("cwd", {"first", "norm", "last"}), ("ofa", {"first", "norm", "last"})):
        student = pupil()
        task = lesson(student, mode=mode)
        terms = task.training_step(student, batch())
        terms[mode].backward()
        reached = {
            name.split(".")[0]
            for name, value in student.named_parameters()
            if value.grad is not None and value.grad.any()
        }
        assert reached == trained
        assert all(value.grad is None for value in task.teacher.network.parameters())
        grads = [layer.weight.grad for layer in task.projections]
        assert len(grads) == (2 if mode == "cwd" else 0)
        assert all(grad is not None and grad.any() for grad in grads)


@pytest.mark.parametrize("name", ["bsdnet_s", "bsdnet_b"])
def test_projections_beside_a_segformer_have_the_published_widths(name: str) -> None:
    class Stages(nn.Module):
        """Maps as wide as those of SegFormer B1 to B5."""

        def __init__(self) -> None:
            super().__init__()
            self.stage3, self.stage4 = nn.Conv2d(3, 320, 1, 16), nn.Conv2d(320, 512, 1, 2)

        def forward(self, images: Tensor) -> SemanticOutput:
            return SemanticOutput(self.stage4(self.stage3(images)))

    pairs = (Pair("backbone.fcb3", "stage3"), Pair("backbone.fcb5", "stage4"))
    with torch.device("meta"):
        student = create_model(name, 19)
        network = Stages()
    given = teacher(Stages())
    task = DistilledTask(
        SemanticTask(CLASSES), student, given, preprocess=PREPROCESS,
        options=DistillOptions("cwd", pairs),
    )  # fmt: skip
    assert len(list(network.parameters())) == 4
    expected = {"bsdnet_s": 172_864, "bsdnet_b": 344_896}
    assert sum(value.numel() for value in task.parameters()) == expected[name]


# ---------------------------------------------------------------- pixels
def test_the_teacher_sees_what_its_own_preprocessing_would_give() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    wanted = Preprocess(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 255.0), stride=4)
    own, theirs = (rule.fit(image).image for rule in (PREPROCESS, wanted))
    task = lesson(pupil(), teacher(preprocess=wanted))
    torch.testing.assert_close(task.renormalize(own[None])[0], theirs, rtol=1e-5, atol=1e-4)
    expected = features(task.teacher.network, theirs[None])
    answer = task.ask(own[None])
    torch.testing.assert_close(answer.maps[0], expected["deep"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answer.logits, expected["logits"], rtol=1e-4, atol=1e-4)


def test_equal_preprocessing_changes_no_bit() -> None:
    task = lesson(pupil())
    assert isinstance(task.renormalize, nn.Identity)
    other = Preprocess(mean=PREPROCESS.mean, std=(60.0, 60.0, 61.0))
    assert isinstance(lesson(pupil(), teacher(preprocess=other)).renormalize, Renormalize)
    assert list(lesson(pupil(), teacher(preprocess=other)).state_dict()) == list(task.state_dict())


# ---------------------------------------------------------------- what stays as it is
def test_the_teacher_is_not_trained_counted_or_saved() -> None:
    student = pupil()
    step = Step(student, lesson(student)).train()
    names = {"model.first", "model.norm", "model.last", "task.projections"}
    for found in (step.state_dict(), dict(step.named_parameters())):
        assert {".".join(name.split(".")[:2]) for name in found} == names
    task = step.task
    assert isinstance(task, DistilledTask)
    network = task.teacher.network
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1)
    torch.stack(list(step(*batch()[:2]).values())).sum().backward()
    optimizer.step()
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert sum(value.numel() for value in task.parameters()) == (4 * 6 + 6) + (3 * 5 + 5)


def test_the_teacher_follows_to_other_types_and_layouts() -> None:
    student = pupil()
    step = Step(student, lesson(student))
    task = step.task
    assert isinstance(task, DistilledTask)
    step.to(torch.float64)
    assert {value.dtype for value in task.teacher.network.parameters()} == {torch.float64}
    task.to(memory_format=torch.channels_last)
    weight = task.teacher.network.deep.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator, union-attr]


def test_student_scores_the_same_and_keeps_nothing_in_memory() -> None:
    plain, student = pupil(), pupil()
    task = lesson(student)
    images = torch.randn(1, 3, 8, 8)
    student.train()
    task.training_step(student, batch())
    plain.load_state_dict(student.state_dict())
    assert torch.equal(student.eval()(images).logits, plain.eval()(images).logits)
    assert task.seen.take() == {}
    assert task.taught.take() == {}


def test_a_moving_average_in_training_mode_is_not_read() -> None:
    student = pupil()
    average = AveragedModel(student)
    task = lesson(student)
    copied = copy.deepcopy(student)
    for other in (average, copied):
        other.train()(torch.randn(2, 3, 8, 8))
        assert task.seen.take() == {}


def test_released_students_have_no_hooks() -> None:
    student = pupil()
    task = lesson(student)
    assert sum(len(module._forward_hooks) for module in student.modules()) == 3
    task.release()
    assert not any(module._forward_hooks for module in student.modules())


def test_projections_depend_on_the_seed_and_leave_the_random_state() -> None:
    def first(seed: int) -> Tensor:
        task = DistilledTask(
            SemanticTask(CLASSES), pupil(), teacher(), preprocess=PREPROCESS,
            options=DistillOptions("cwd", PAIRS), seed=seed,
        )  # fmt: skip
        layer = task.projections[0]
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        assert not layer.bias.any()
        return layer.weight

    student, given = pupil(), teacher()
    state = torch.get_rng_state()
    lesson(student, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_all_else_is_that_of_the_wrapped_task() -> None:
    plain, task = SemanticTask(CLASSES), lesson(pupil())
    assert (task.needs, task.output_type) == (plain.needs, plain.output_type)
    sample = Sample(np.zeros((4, 4, 3), np.uint8), {"semantic": np.ones((4, 4), np.uint8)})
    assert torch.equal(task.target([sample]).labels, plain.target([sample]).labels)
    assert type(task.new_metric()) is type(plain.new_metric())
    output = SemanticOutput(torch.randn(1, 3, 2, 2))
    meta = [ImageMeta("a", (4, 4), (4, 4), (0, 0))]
    one, two = (item.postprocess(output, meta, confidence=True)[0] for item in (plain, task))
    assert (one.mask == two.mask).all()
    assert (one.confidence == two.confidence).all()
    assert task.smallest_batch == 1
    plain.smallest_batch = 4  # type: ignore[attr-defined]
    again = DistilledTask(
        plain, pupil(), teacher(), preprocess=PREPROCESS, options=DistillOptions("ofa")
    )
    assert again.smallest_batch == 4


def test_a_compiled_step_is_one_graph_with_the_same_terms() -> None:
    found = []
    for compiled in (False, True):
        student = pupil()
        step: Any = Step(student, lesson(student))
        optimizer = torch.optim.SGD(step.parameters(), lr=0.01)
        call = torch.compile(step, fullgraph=True, backend="eager") if compiled else step
        torch.manual_seed(3)
        for _ in range(3):
            terms = call(*batch()[:2])
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append({name: value.item() for name, value in terms.items()})
    assert found[:3] == found[3:]
