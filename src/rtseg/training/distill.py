"""Distillation: a trained teacher looks at the same images, and the student's loss gets new terms.

`DistilledTask` wraps any task. The networks know nothing of it: features are read by the names of
modules while a step runs. What is trained beside the student, the projections of its features, is
kept in the training state alone; the student's own weights are those of a plain run.

Paper: BSDNet, section 3.3 (semantic information distillation module). Feature alignment compares
where channels are active (CWD), logits alignment the classes of pixels (OFA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError
from rtseg.losses.distillation import (
    channel_wise_distillation,
    match_statistics,
    ofa_distillation,
)
from rtseg.ops.resize import resize_logits
from rtseg.structures import Batch, ImageMeta, Sample, SemanticOutput
from rtseg.tasks import Task
from rtseg.training.distill_options import DistillOptions
from rtseg.training.distill_outputs import Outputs, blank_image, map_channels
from rtseg.training.teachers import Teacher

WHOLE = ""
"""Name of a network itself among its modules."""


class Answer(NamedTuple):
    """What a teacher says about images.

    `maps`: (B, C, h, w) of each pair; none if features are not aligned.
    `logits`: (B, K, h, w); empty if class scores are not.
    """

    maps: tuple[Tensor, ...]
    logits: Tensor


class AnsweredTarget(NamedTuple):
    """Labels of a batch together with what the teacher once said about its images."""

    target: Any
    answer: Answer


class Renormalize(nn.Module):
    """Turn images that one network's preprocessing has normalized into those of another's."""

    scale: Tensor
    shift: Tensor

    def __init__(self, given: Preprocess, wanted: Preprocess) -> None:
        super().__init__()
        own = [torch.tensor(values, dtype=torch.float64) for values in (given.mean, given.std)]
        new = [torch.tensor(values, dtype=torch.float64) for values in (wanted.mean, wanted.std)]
        scale, shift = own[1] / new[1], (own[0] - new[0]) / new[1]
        self.register_buffer("scale", scale.float().view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the same shape."""
        return images * self.scale + self.shift


class DistilledTask(nn.Module):
    """A task whose loss has terms of a teacher; all else is that of the task.

    Its parameters are the projections of the student's features. The teacher is no submodule: it is
    neither trained nor averaged, counted or saved, stays in evaluation mode, and moves along to
    other devices.

    Args:
        task: The task that the student learns.
        student: The network that will be trained; until `release` its outputs are read.
        teacher: The teacher.
        preprocess: How the student's images are normalized.
        options: What is aligned, and how strongly.
        seed: Of the projections.

    Raises:
        ConfigError: A pair names no feature map, or the scores of pixels are to be aligned and the
            student or the teacher has none.
    """

    def __init__(
        self,
        task: Task,
        student: nn.Module,
        teacher: Teacher,
        *,
        preprocess: Preprocess,
        options: DistillOptions,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.task, self.teacher, self.options = task, teacher, options
        self.needs, self.output_type = task.needs, task.output_type
        self.smallest_batch = getattr(task, "smallest_batch", 1)
        self.pairs = options.pairs if options.aligns_features else ()
        self.renormalize: nn.Module = nn.Identity()
        if (preprocess.mean, preprocess.std) != (teacher.preprocess.mean, teacher.preprocess.std):
            self.renormalize = Renormalize(preprocess, teacher.preprocess)
        if options.aligns_scores:
            _require_scores(task, teacher)
        own, wanted = [pair.student for pair in self.pairs], [pair.teacher for pair in self.pairs]
        widths = zip(
            map_channels(student, own, who="student"),
            map_channels(teacher.network, wanted, who="teacher"),
            strict=True,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projections = nn.ModuleList(_projection(ours, theirs) for ours, theirs in widths)
        self.seen = Outputs(student, [*own, WHOLE], training=True)
        self.taught = Outputs(teacher.network, wanted, training=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's)
        """Let the teacher follow to another device or memory format."""
        self.teacher.network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def release(self) -> None:
        """Leave the student as it was: without hooks."""
        self.seen.remove()

    def target(self, samples: Sequence[Sample]) -> Any:
        """Return the target of the wrapped task."""
        return self.task.target(samples)

    def new_metric(self) -> Any:
        """Return the metric of the wrapped task."""
        return self.task.new_metric()

    def postprocess(
        self, output: Any, meta: Sequence[ImageMeta], *, confidence: bool = False
    ) -> list[Any]:
        """Return the results of the wrapped task."""
        return self.task.postprocess(output, meta, confidence=confidence)

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the wrapped task, and `cwd` and `ofa`, weighted.

        Args:
            model: The student.
            batch: Images (B, 3, H, W) as the student sees them; its target may be an
                `AnsweredTarget`, so that the teacher is not asked.
        """
        target, answer = batch.target, None
        if isinstance(target, AnsweredTarget):
            target, answer = target
        terms = self.task.training_step(model, batch._replace(target=target))
        seen = self.seen.take()
        if answer is None:
            answer = self.ask(batch.images)
        if self.pairs:
            terms["cwd"] = self._feature_loss(seen, answer.maps)
        if self.options.aligns_scores:
            terms["ofa"] = self._score_loss(seen[WHOLE], answer.logits, target.labels)
        return terms

    def divisors(self, target: Any) -> dict[str, Tensor]:
        """Return by what the terms of the wrapped task are divided."""
        return self.task.divisors(target[0] if isinstance(target, AnsweredTarget) else target)

    @torch.no_grad()
    def ask(self, images: Tensor) -> Answer:
        """Return what the teacher says about images (B, 3, H, W) as the student sees them."""
        output = self.teacher.network(self.renormalize(images))
        found = self.taught.take()
        maps = tuple(found[pair.teacher] for pair in self.pairs)
        scored = self.options.aligns_scores
        return Answer(maps, output.logits if scored else images.new_zeros(0))

    def _feature_loss(self, seen: dict[str, Any], maps: Sequence[Tensor]) -> Tensor:
        """Add up the losses of the pairs: project, resize, match statistics, compare."""
        losses = []
        for pair, project, wanted in zip(self.pairs, self.projections, maps, strict=True):
            own = resize_logits(project(seen[pair.student]), (wanted.shape[-2], wanted.shape[-1]))
            own = match_statistics(own, wanted)
            temperature = self.options.cwd_temperature
            loss = channel_wise_distillation(own, wanted, temperature=temperature)
            losses.append(pair.weight * loss)
        return torch.stack(losses).sum()

    def _score_loss(self, output: SemanticOutput, wanted: Tensor, labels: Tensor) -> Tensor:
        """Compare class scores on the teacher's grid; labels (B, H, W) are taken to it.

        decision: each cell has the label of the pixel in its middle, as bilinear resizing aligns
        the grids there.
        """
        size = (wanted.shape[-2], wanted.shape[-1])
        near = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
        options = self.options
        return options.ofa_weight * ofa_distillation(
            resize_logits(output.logits, size),
            wanted,
            near[:, 0].to(labels.dtype),
            theta=options.theta,
            temperature=options.ofa_temperature,
            nontarget_power=options.nontarget_power,
        )


def _projection(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Build the convolution that brings features to the teacher's width. Source: SCTNet."""
    layer = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _require_scores(task: Task, teacher: Teacher) -> None:
    """Refuse to align class scores of pixels where a network has none."""
    if task.output_type is not SemanticOutput:
        raise ConfigError(
            f"the student returns {task.output_type.__name__}, which has no class scores of pixels",
            where="distill.mode",
            fix="use mode cwd, which compares features",
        )
    with torch.no_grad():
        output = teacher.network(blank_image(teacher.network))
    if not isinstance(output, SemanticOutput):
        raise ConfigError(
            f"the teacher returns {type(output).__name__}, which has no class scores of pixels",
            where="distill.teacher",
            fix="use mode cwd, or a teacher that classifies pixels",
        )
