"""Find out where numbers stopped being finite: in which image, weight, layer or loss term."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rtseg.errors import RtsegError
from rtseg.structures import Batch
from rtseg.training.session import Session

MOST_NAMED = 2
"""Images that the message names; the file lists all."""


@dataclass(frozen=True)
class Finding:
    """Where the first number is not finite.

    what: for a reader, such as `the output of layer 'encoder.0'`. kind: image, weight, layer, loss
    or elsewhere. name: of the weight, layer or term. images: paths of the images concerned.
    """

    what: str
    kind: str
    name: str
    images: tuple[str, ...]


def not_finite(session: Session, parts: Sequence[Batch], terms: dict[str, float]) -> RtsegError:
    """Return the error about a loss that is not finite; write `plots/nan_<step>.json`.

    The step is computed once more, with the same weights, to see where it begins. The checkpoints
    of the run stay as they were.

    Args:
        session: Before the optimizer has taken the step.
        parts: What the step was computed on.
        terms: The loss terms.
    """
    findings = (first_not_finite(session, batch) for batch in parts)
    found = next((item for item in findings if item is not None), None)
    if found is None:
        images = tuple(item.path for batch in parts for item in batch.meta)
        found = Finding("its cause could not be found again", "elsewhere", "", images)
    document = {"step": session.step, "terms": {k: repr(v) for k, v in terms.items()}}
    text = json.dumps({**document, **asdict(found)}, indent=2)
    session.log.write(f"plots/nan_{session.step}.json", text + "\n")
    return RtsegError(
        f"the loss is not finite at step {session.step}: {found.what}",
        where=", ".join(found.images[:MOST_NAMED]),
        fix="lower optimizer.lr, set train.clip_norm, or train.precision=fp32; "
        "the last checkpoint is from before",
    )


def first_not_finite(session: Session, batch: Batch) -> Finding | None:
    """Compute the loss of a batch once more, and return where it stops being finite, if it does."""
    paths = tuple(item.path for item in batch.meta)
    if not torch.isfinite(batch.images).all():
        return Finding("images hold such numbers", "image", "", _of_images(batch.images, paths))
    model = session.plan.model
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            return Finding(f"{name!r} of the network is not, since an earlier step", "weight",
                           name, paths)  # fmt: skip
    with torch.no_grad(), session.fabric.autocast():
        return _walk(session, batch, paths)


def _walk(session: Session, batch: Batch, paths: tuple[str, ...]) -> Finding | None:
    """Run the network with an eye on each of its modules, innermost first."""
    device, plan = session.fabric.device, session.plan
    found: list[Finding] = []

    def look(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        for value in tree_leaves(output):
            is_map = isinstance(value, Tensor) and value.is_floating_point()
            if not found and is_map and not torch.isfinite(value).all():
                place = f"the output of layer {name!r} is the first" if name else "its output is"
                found.append(Finding(place, "layer", name, _of_images(value, paths)))

    hooks = [
        module.register_forward_hook(partial(look, name))
        for name, module in plan.model.named_modules()
    ]
    try:
        images, target = batch.images.to(device), session.fabric.to_device(batch.target)
        terms = plan.task.training_step(plan.model, Batch(images, target, batch.meta))
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    bad = [name for name, value in terms.items() if not torch.isfinite(value).all()]
    return Finding(f"term {bad[0]!r} of the loss is not", "loss", bad[0], paths) if bad else None


def _of_images(values: Tensor, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths of the images whose part of (B, ...) is not finite; of all, if none has."""
    if values.dim() == 0 or len(values) != len(paths):
        return paths
    bad = ~torch.isfinite(values).flatten(1).all(1)
    return tuple(path for path, flag in zip(paths, bad.tolist(), strict=True) if flag)
