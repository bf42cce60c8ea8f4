"""Teachers: trained networks that a student learns from, by the name that a recipe gives them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rtseg.checkpoint import load
from rtseg.config import call
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckpointError, ConfigError, MissingError
from rtseg.structures import SemanticOutput

SEGFORMER_CONFIG = "config.json"


@dataclass(frozen=True)
class Teacher:
    """A trained network, frozen, with what it expects and what it is.

    network: images (B, 3, H, W), normalized with its own `preprocess`, -> an output of a task; in
    evaluation mode. classes: names of its classes by id. source: where it came from. sha256: of its
    weights and buffers.
    """

    network: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess
    source: str
    sha256: str


def checkpoint_teacher(*, path: str) -> Teacher:
    """Take the network of a checkpoint or run folder; its modules have the names in its file.

    Args:
        path: The folder; of a run folder `best`, or `last` if there is no `best`.

    Raises:
        CheckpointError: Nothing there, damaged, or a network of the user's own class.
    """
    loaded = load(path)
    info = loaded.info
    preprocess = call(Preprocess, info.preprocess, section="preprocess")
    names = tuple(item.name for item in info.classes)
    return _frozen(loaded.model, names, preprocess, path)


class SegFormer(nn.Module):
    """A SegFormer of transformers whose stages can be read: `stage1` to `stage4`.

    Their outputs are the maps of the encoder, at 1/4, 1/8, 1/16 and 1/32 of the input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.stage1, self.stage2, self.stage3, self.stage4 = (nn.Identity() for _ in range(4))

    def forward(self, images: Tensor) -> SemanticOutput:
        """Score the classes of normalized images (B, 3, H, W); logits (B, K, H/4, W/4)."""
        output = self.network(images, output_hidden_states=True)
        stages = (self.stage1, self.stage2, self.stage3, self.stage4)
        for stage, features in zip(stages, output.hidden_states, strict=True):
            stage(features)
        return SemanticOutput(output.logits)


def segformer_teacher(
    *, path: str, download: bool = False, names: Literal["compare", "trust"] = "compare"
) -> Teacher:
    """Take a SegFormer that transformers has saved.

    Args:
        path: Its folder (`config.json`, weights, and `preprocessor_config.json` for the pixel
            values; without the last those of ImageNet, which SegFormer is trained with), or its
            name on the Hugging Face Hub.
        download: Whether `path` is a name on the Hub; nothing is fetched otherwise.
        names: `trust` compares only the number of classes with that of the data, for checkpoints
            that spell names in their own way; their order is then yours to know.

    Raises:
        MissingError: transformers is not installed.
        CheckpointError: There is no such folder, or it holds no trained SegFormer with a head.
    """
    folder = Path(path)
    if not download and not (folder / SEGFORMER_CONFIG).is_file():
        raise CheckpointError(
            f"has no {SEGFORMER_CONFIG}" if folder.exists() else "does not exist",
            where=path,
            fix="give the folder of a saved SegFormer, or its name on the Hub with "
            "distill.teacher.download=true",
        )
    network, pixels = _read_segformer(path, download=download)
    spelt = network.config.id2label
    classes = tuple(spelt[index] if names == "compare" else "" for index in range(len(spelt)))
    return _frozen(SegFormer(network), classes, _pixels(pixels), path)


def _read_segformer(path: str, *, download: bool) -> tuple[Any, dict[str, Any]]:
    """Return the network and the content of its `preprocessor_config.json` (empty without one)."""
    try:
        from transformers import SegformerForSemanticSegmentation
        from transformers.models.auto.image_processing_auto import get_image_processor_config
    except ImportError:
        raise MissingError(
            "a SegFormer needs the package `transformers`",
            where="distill.teacher",
            fix="pip install 'rtseg[teachers]'",
        ) from None
    try:
        with _silence():
            network, report = SegformerForSemanticSegmentation.from_pretrained(
                path, local_files_only=not download, output_loading_info=True
            )
            pixels = get_image_processor_config(path, local_files_only=not download)
    except Exception as error:  # transformers and safetensors raise almost anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot be read as a SegFormer ({reason})",
            where=path,
            fix="give the folder of a saved SegFormer with its segmentation head",
        ) from None
    absent = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
    absent = [key for key in absent if not key.endswith("num_batches_tracked")]  # is not read
    if absent:
        raise CheckpointError(
            f"lacks {absent[0]} (of {len(absent)}), which would stay random",
            where=path,
            fix="give a SegFormer that was trained for segmentation, not its encoder alone",
        )
    return network.float(), pixels


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers from reporting what is said in one sentence here."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _pixels(found: dict[str, Any]) -> Preprocess:
    """Return how a SegFormer's processor normalizes, in units of 0-255."""
    scale = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    if not found.get("do_normalize", True):
        return Preprocess(mean=(0.0, 0.0, 0.0), std=(1 / scale, 1 / scale, 1 / scale))
    usual = Preprocess()
    if "image_mean" not in found and "image_std" not in found:
        return usual
    # Rounded, so that 0.485 * 255 is the 123.675 that recipes write.
    mean, std = (tuple(round(value / scale, 6) for value in found[key])
                 for key in ("image_mean", "image_std"))  # fmt: skip
    return Preprocess(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _frozen(
    network: nn.Module, classes: tuple[str, ...], preprocess: Preprocess, source: str
) -> Teacher:
    network.eval().requires_grad_(requires_grad=False)
    return Teacher(network, classes, preprocess, source, digest(network))


def digest(network: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers of a network, with their names and shapes."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if isinstance(value, Tensor):
            found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_classes(teacher: Teacher, names: Sequence[str]) -> None:
    """Refuse a teacher whose classes are not those of the data, in their order.

    Case, blanks, hyphens and underscores do not count; a teacher without names has empty ones, of
    which only the number is compared.

    Raises:
        ConfigError: They differ.
    """
    if len(teacher.classes) != len(names):
        raise ConfigError(
            f"the teacher has {len(teacher.classes)} classes, the data {len(names)}",
            where="distill.teacher",
            fix="give a teacher that was trained with the classes of the data",
        )
    for number, (theirs, ours) in enumerate(zip(teacher.classes, names, strict=True)):
        if theirs and _spelling(theirs) != _spelling(ours):
            raise ConfigError(
                f"class {number} of the teacher is {theirs!r}, of the data {ours!r}",
                where="distill.teacher",
                fix="give a teacher with the classes of the data in their order",
            )


def _spelling(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " -_")


TEACHERS: dict[str, Callable[..., Teacher]] = {
    "rtseg": checkpoint_teacher,
    "segformer": segformer_teacher,
}
"""Kinds of teachers by the `name` of section `distill.teacher`; the rest are keyword arguments."""
