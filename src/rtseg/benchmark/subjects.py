"""What is measured: a checkpoint, an exported folder, or a name with random weights."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rtseg import checkpoint, config
from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.benchmark.published import ELSEWHERE, PUBLISHED
from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckpointError, ConfigError, nearest
from rtseg.models import MODELS
from rtseg.runtimes import ENGINES, NETWORKS, RUNTIMES, is_export, read_manifest
from rtseg.structures import ClassInfo
from rtseg.tasks import TASKS

Size = tuple[int, int]
PRECISIONS = ("fp32", "bf16", "fp16")
"""Of a network; an exported file has its own."""
RANDOM = "random weights"
OWN_PRECISION = {"openvino": ("fp32", "bf16")}
"""Engines that compute in any of these whatever the file holds; one file is enough for them."""
PREFERRED_TASKS = ("semantic", "road_lane", "semantic_masks", "classification")
"""decision: of the tasks that fit a network with random weights, the one to measure."""
SETTLING = (5, (2, 3, 64, 96))
"""decision: batches of noise, and their shape, that batch norms of random weights see."""


@dataclass(frozen=True)
class Subject:
    """A network to measure.

    name: of the network. source: `checkpoint`, `export` or `random weights`. folder: what a
    process opens. shown: what the user gave. size: (H, W) of an image; input_size: of what the
    network gets. precisions: those of an exported folder, else none. complexity: as the report has
    it.
    """

    name: str
    source: str
    folder: Path
    shown: str | None
    info: ModelInfo
    size: Size
    input_size: Size
    precisions: tuple[str, ...]
    complexity: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """Return what a row of the report says about it."""
        scores = self.info.facts.get("scores") or {}
        return {
            "network": self.name, "source": self.source, "path": self.shown,
            "size": list(self.size), "complexity": self.complexity, "scores": dict(scores),
            "stages_ms": {}, "layers": [],
        }  # fmt: skip


def find_subject(
    network: str | Path | Checkpoint,
    *,
    folder: Path,
    size: Size | None = None,
    fit: Literal["tensor", "image"] = "tensor",
) -> Subject:
    """Return the network that a user means.

    Args:
        network: Checkpoint or run folder, exported folder, name of weights that come with the
            package, or name of a network, which gets random weights; or a loaded checkpoint.
        folder: Where random weights are written.
        size: (H, W) of an image; by default that of the exported file or of the paper.
        fit: Whether the network gets a `tensor` of that size, or an `image`, resized and padded as
            its preprocessing says.

    Raises:
        CheckpointError: There is no such thing, or it is damaged.
        ConfigError: The network does not take that size.
    """
    found = _find(network, folder, size)
    inside = found.size
    if fit == "image":
        preprocess = config.call(Preprocess, found.info.preprocess, section="preprocess")
        meta = preprocess.measure(found.size)
        inside = (meta.input_size[0] + meta.padding[0], meta.input_size[1] + meta.padding[1])
    try:
        costs = complexity_of(found.info, inside)
    except ValueError as error:  # a network says what it takes
        raise ConfigError(str(error), where="--size") from None
    return replace(found, input_size=inside, complexity=costs)


def _find(network: str | Path | Checkpoint, folder: Path, size: Size | None) -> Subject:
    """Find a network; its costs are not counted yet."""
    shown = str(network.path if isinstance(network, Checkpoint) else network)
    if is_export(shown):
        return _exported(Path(shown), size)
    if shown in MODELS and not Path(shown).exists():
        info = random_checkpoint(shown, folder / shown)
        return _subject(RANDOM, folder / shown, info, size=size)
    try:
        place = checkpoint.locate(shown)
    except CheckpointError as error:
        if Path(shown).exists():
            raise
        names = ", ".join(nearest(Path(shown).name, MODELS))
        fix = f"{error.fix}, or a network such as {names}"
        raise CheckpointError(error.what, where=error.where, fix=fix) from None
    info = checkpoint.read_info(place)
    return _subject("checkpoint", place, info, size=size, shown=shown)


def _exported(folder: Path, size: Size | None) -> Subject:
    manifest = read_manifest(folder)
    info = checkpoint.parse_info(manifest.config, where=folder)
    first = 1 if manifest.with_preprocess else 2
    height, width = manifest.image.shape[first : first + 2]
    own = None if height is None or width is None else (height, width)
    return _subject(
        "export", folder, info, size=size or own, shown=str(folder),
        precisions=(manifest.precision,),
    )  # fmt: skip


def _subject(
    source: str,
    folder: Path,
    info: ModelInfo,
    *,
    size: Size | None,
    shown: str | None = None,
    precisions: tuple[str, ...] = (),
) -> Subject:
    chosen = size or PUBLISHED.get(info.name, ELSEWHERE).input_size
    return Subject(info.name, source, folder, shown, info, chosen, chosen, precisions, {})


def complexity_of(info: ModelInfo, size: Size) -> dict[str, Any]:
    """Return parameters, multiply-adds and GFLOPs of one image, as trained and as deployed."""
    classes = checkpoint.class_count(info.name, len(info.classes))
    model = checkpoint.create_model(info.name, classes, **info.options)
    macs = count_macs(model, size)
    deployed: nn.Module = model.deployable()  # type: ignore[operator]  # every network has it
    trainable = sum(item.numel() for item in model.parameters() if item.requires_grad)
    return {
        "parameters": {
            "trainable": trainable,
            "total": count_parameters(model),
            "deployed": count_parameters(deployed),
        },
        "macs": macs,
        "deployed_macs": count_macs(deployed, size),
        "gflops": 2 * macs / 1e9,
        "size": list(size),
        "tool": "torch.utils.flop_counter, convolutions and matrix products",
    }


# ---------------------------------------------------------------- random weights
def random_checkpoint(name: str, folder: Path) -> ModelInfo:
    """Write a checkpoint with random weights (seed 0), and batch norms that have seen noise.

    Args:
        name: Key of `MODELS`; it gets as many classes as the paper's main table has.
        folder: Where it goes.
    """
    count = PUBLISHED.get(name, ELSEWHERE).num_classes
    torch.manual_seed(0)
    model = checkpoint.create_model(name, count)
    settle_norms(model)
    info = ModelInfo(name, {}, _task_of(model), _classes(count or 2), {})
    checkpoint.save(folder, model.state_dict(), info)
    return info


def settle_norms(model: nn.Module) -> None:
    """Let batch norms see some noise, so that values neither vanish nor explode behind them."""
    passes, shape = SETTLING
    model.train()
    with torch.no_grad():
        for _ in range(passes):
            model(torch.randn(shape))
    model.eval()


def _task_of(model: nn.Module) -> str:
    """Return the task for the output that the network's `forward` declares."""
    output = typing.get_type_hints(type(model).forward)["return"]
    return next(name for name in PREFERRED_TASKS if TASKS[name].output_type is output)


def _classes(count: int) -> tuple[ClassInfo, ...]:
    if count == len(CITYSCAPES_CLASSES):
        return CITYSCAPES_CLASSES
    return tuple(
        ClassInfo(f"class {index}", (index % 256, index // 256, 128)) for index in range(count)
    )


# ---------------------------------------------------------------- engines
def runtimes_of(subject: Subject, wanted: Sequence[str] | None) -> list[str]:
    """Return the engines to measure; None is torch, or what an exported folder is made for.

    Raises:
        ConfigError: An engine has no such name.
    """
    if wanted is None and subject.source == "export":
        written = read_manifest(subject.folder).format
        return [next(name for name, engine in ENGINES.items() if written in engine.formats)]
    names = list(dict.fromkeys(("torch",) if wanted is None else wanted))
    for name in names:
        if name not in RUNTIMES:
            close = nearest(name, RUNTIMES, count=1)[0]
            raise ConfigError(
                f"{name!r} is unknown", where="--runtime", fix=f"did you mean {close!r}?"
            )
    return names


def engine_file(subject: Subject, runtime: str, precision: str, folder: Path) -> Path:
    """Return the folder that an engine opens; where it needs an exported file, make that first.

    Args:
        subject: The network.
        runtime: The engine.
        precision: What it shall compute in.
        folder: Where exported folders are written, each once.

    Raises:
        RtsegError: The export is not possible or does not pass its check, or a network is asked
            for and there is only an exported file.
    """
    if subject.source == "export":
        if runtime in NETWORKS:
            raise ConfigError(
                f"{runtime} runs networks, and {subject.shown} is an exported file",
                where="--runtime", fix="leave it out, or give the checkpoint",
            )  # fmt: skip
        return subject.folder
    if runtime in NETWORKS:
        return subject.folder
    held: Any = "fp32" if precision in OWN_PRECISION.get(runtime, ()) else precision
    written = ENGINES[runtime].formats[0]
    height, width = subject.input_size
    target = folder / f"{subject.name}-{written}-{held}-{height}x{width}"
    if not is_export(target):
        from rtseg.export import export  # slow to import, and not every engine needs a file

        export(
            checkpoint.load(subject.folder), written, target, precision=held, size=(height, width)
        )
    return target
