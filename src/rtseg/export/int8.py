"""Eight bits: what is written, what it is compared with, and how much score it may cost."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rtseg.checkpoint import Checkpoint
from rtseg.data.dataset import Dataset
from rtseg.data.preprocess import Preprocess
from rtseg.data.spec import open_splits
from rtseg.errors import CheckFailedError, CheckpointError, ConfigError, MissingError
from rtseg.evaluation import score
from rtseg.export import nncf
from rtseg.export.alone import AloneError, call_alone
from rtseg.export.formats import Write
from rtseg.export.qdq import in_bytes
from rtseg.export.verify import Case, Gate, Reference, compare, together
from rtseg.quantization import Calibration, FakeQuantize, QuantizedNetwork, quantize
from rtseg.runtimes import (
    ENGINES,
    Manifest,
    Runtime,
    deployable,
    installed,
    open_export,
    run_network,
)
from rtseg.structures import ClassInfo, Sample
from rtseg.tasks import rebuild

Data = str | Path | Mapping[str, Dataset]
"""What opens a data set, as `rtseg val --data` takes it, or data sets by split."""
SCORES = {
    "semantic": ("miou",),
    "semantic_masks": ("miou",),
    "panoptic": ("pq",),
    "instance": ("ap",),
    "road_lane": ("drivable_miou", "lane_iou"),
    "classification": ("accuracy",),
}
"""Scores that may not drop, by task."""
ALIKE = 0.97
"""decision: where there are no labels, so many of the pixels keep the class of the float network. A
pixel that changes lies mostly between two classes, so 3 % of them cost about a point."""
RUN = Gate(error=None, agreement=0.0)
"""The file has to run; the data say whether it is good."""
SHAKE = 1e-5
"""Relative change of a sum that another order of its terms, and a bias in whole steps, make."""
LEAST, FACTOR = 0.002, 4
"""decision: the share of pixels that may differ from the network with the same rounding in torch:
so many, and so many times what that network differs from itself if all values are shaken. A sum on
the border between two bytes falls to either side, and a deep network makes more of it: trained
LSA-BiNet differs from itself at 0.2 % of the pixels, by the engines at 0.4 %."""


@dataclass(frozen=True)
class Images:
    """Images that ranges are taken from, and those on which the score is compared.

    calibration: one to a batch. scored: drawn likewise. splits: names of the two splits.
    """

    calibration: Calibration
    scored: Dataset
    splits: tuple[str, str]
    preprocess: Preprocess

    def in_pixels(self, *, scored: bool = False) -> Calibration:
        """Return the images of one of the two in 0..255, not normalized, one to a batch."""
        pixels = self.preprocess.in_pixels()
        if not scored:
            return dataclasses.replace(self.calibration, preprocess=pixels)
        return Calibration(self.scored, pixels, count=len(self.scored), batch_size=1)


class Drawn:
    """Some samples of a data set."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.classes: tuple[ClassInfo, ...] = dataset.classes
        self.kinds: tuple[str, ...] = dataset.kinds

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]


def open_images(data: Data, preprocess: Preprocess, *, count: int) -> Images:
    """Draw images of the split `train` for the ranges, and of `val` for the score.

    If one of the two is not there, the other serves for both, or else the first split.

    Raises:
        ConfigError: `count` is below 1, or the name of the data set is unknown.
        DataError: There are no images.
    """
    splits = data if isinstance(data, Mapping) else open_splits(str(data))
    own = next(name for name in ("train", "val", *splits) if name in splits)
    scored = "val" if "val" in splits else own
    ranges, drawn = (
        Calibration(splits[name], preprocess, count=count, batch_size=1) for name in (own, scored)
    )
    return Images(ranges, Drawn(splits[scored], drawn.indices), (own, scored), preprocess)


class Plan(NamedTuple):
    """How a network is exported: what is traced, what writes it, and what it has to agree with."""

    network: nn.Module
    write: Write
    reference: nn.Module


def plan(
    model: nn.Module, write: Write, *, format_name: str, images: Images | None, pixels: bool
) -> Plan:
    """Return how a network is exported in eight bits.

    A float network is quantized with ranges from images: by NNCF for OpenVINO, as it knows best
    what that engine can fuse, and as rtseg simulates it for ONNX. A network that has been trained
    with rounding is written as it is, in both formats.

    Args:
        model: Float, or quantized already.
        write: Writes a traced network in the format.
        format_name: `onnx` or `openvino`.
        images: For a float network.
        pixels: Whether the file normalizes.

    Raises:
        ConfigError: Images are missing, or not needed; or the network cannot be quantized.
        MissingError: NNCF is not installed.
    """
    if isinstance(model, QuantizedNetwork):
        if images is not None:
            raise ConfigError(
                "the network is quantized already, with ranges of its own",
                where="calib",
                fix="leave it out",
            )
        return Plan(in_bytes(model), write, model)
    if images is None:
        raise ConfigError(
            "int8 needs images to take ranges from",
            where="calib",
            fix="name data, such as --calib camvid=data/camvid",
        )
    if format_name != "openvino":
        rounded = quantize(model, images.calibration)
        return Plan(in_bytes(rounded), write, rounded)
    if importlib.util.find_spec("nncf") is None:
        raise MissingError("nncf is not installed", fix="pip install 'rtseg[openvino]'")
    ranges = images.in_pixels() if pixels else images.calibration
    return Plan(deployable(model), functools.partial(nncf.write, images=ranges), model)


def tolerance(model: nn.Module, reference: Reference, batches: Sequence[Case]) -> Gate:
    """Return how far a file with the same rounding as a network may differ from it.

    Args:
        model: The network, rounding in torch; a float one only has to run.
        reference: Of that network.
        batches: What the file is compared on.
    """
    if not isinstance(model, QuantizedNetwork):
        return RUN
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, FakeQuantize):
            module.register_forward_pre_hook(_shake)
    shaken = Reference(twin, reference.preprocess, choose=reference.choose)
    found = [compare(shaken.outputs(case), reference.outputs(case)) for case in batches]
    own = min(together([item[name] for item in found]).agreement for name in found[0])
    return Gate(error=None, agreement=max(0.0, 1 - LEAST - FACTOR * (1 - own)))


def _shake(_: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value * (1 + SHAKE) for value in values)


# ---------------------------------------------------------------- engines
def engines(folder: Path, manifest: Manifest) -> list[str]:
    """Return the engines of this machine that run a file; each has run it in another process.

    Engines have crashed on quantized files.

    Raises:
        CheckFailedError: One crashes, or does not open the file.
    """
    names = [name for name in installed() if manifest.format in ENGINES[name].formats]
    for name in names:
        try:
            call_alone(_run_once, folder, name)
        except (AloneError, CheckpointError) as error:
            raise CheckFailedError(
                f"{name} does not run it: {getattr(error, 'what', error)}",
                where=manifest.format,
                fix="nothing was written; export it for one size (--dynamic none), or in fp32",
            ) from None
    return names


def _run_once(folder: Path, engine: str) -> None:
    opened = open_export(folder, runtime=engine).model
    assert isinstance(opened, Runtime)
    assert opened.manifest is not None
    opened(torch.zeros(opened.manifest.image.shape[0] or 1, 3, *opened.manifest.facts["size"]))


# ---------------------------------------------------------------- what it costs
def judge(
    checkpoint: Checkpoint, opened: Checkpoint, images: Images, *, reference: Reference, gate: float
) -> dict[str, Any]:
    """Compare the file with the float network on real images; return the figures.

    Args:
        checkpoint: The float network.
        opened: The file, with an engine.
        images: Their labels are used if they are those of the task.
        reference: Of the float network.
        gate: Points (hundredths) that a score may drop.

    Raises:
        CheckFailedError: A score drops further; without labels, too few pixels keep their class.
        ConfigError: The file does not take images of their size.
        DataError: An image cannot be read.
    """
    ranges, scored = images.splits
    report = {
        "ranges": {"split": ranges, **images.calibration.provenance()},
        "scored": {"split": scored, "images": len(images.scored)},
    }
    if _labelled(checkpoint, images.scored):
        return report | {"gate": gate, "scores": _scores(checkpoint, opened, images.scored, gate)}
    return report | {"gate": ALIKE, "agreement": _agreement(opened, images, reference)}


def _labelled(checkpoint: Checkpoint, data: Dataset) -> bool:
    """Return whether data have the labels of the task, and the classes of the network."""
    info = checkpoint.info
    task = rebuild(info.task, info.classes, info.recipe.get("task", {}))
    same = [item.name for item in data.classes] == [item.name for item in info.classes]
    return set(task.needs) <= set(data.kinds) and (same or info.task == "road_lane")


def _scores(
    checkpoint: Checkpoint, opened: Checkpoint, data: Dataset, gate: float
) -> dict[str, dict[str, float]]:
    """Return the scores of both by name."""
    before = score(dataclasses.replace(checkpoint, model=run_network(checkpoint.model)), data)
    after = score(opened, data)
    names = [name for name in SCORES[checkpoint.info.task] if name in before.scores]
    for name in names:
        drop = 100 * (before.scores[name] - after.scores[name])
        if not drop <= gate:
            raise _worse(
                f"{name} is {after.scores[name]:.4f} instead of {before.scores[name]:.4f}: "
                f"{drop:.2f} points lower, at most {gate:g} are allowed"
            )
    return {name: {"fp32": before.scores[name], "int8": after.scores[name]} for name in names}


def _agreement(opened: Checkpoint, images: Images, reference: Reference) -> float:
    """Return the share of pixels that keep the class of the float network."""
    model, found = opened.model, []
    assert isinstance(model, Runtime)
    for pixels in images.in_pixels(scored=True):
        normalized = reference.preprocess.normalize(pixels).contiguous()
        output = model(pixels if model.takes_pixels else normalized)
        found.append(compare(output, reference.output(normalized)))
    share = min(together([item[name] for item in found]).agreement for name in found[0])
    if share < ALIKE:
        raise _worse(f"{share:.2%} of the pixels keep their class, at least {ALIKE:.0%} have to")
    return share


def _worse(what: str) -> CheckFailedError:
    return CheckFailedError(
        what,
        where="int8",
        fix="nothing was written; calibrate with more images, train it with a section quantize, "
        "or use bf16",
    )
