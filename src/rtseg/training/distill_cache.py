"""Keep what a teacher says about the images of a training set, so that it is asked only once.

That pays when the same inputs come again, which is so without augmentation alone. One file per
input, named by the hash of its pixels, in a folder named by the hash of all that the answers depend
on: the teacher, what is read of it, and the preprocessing. Numbers are float16.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rtseg.data.augment import Augment
from rtseg.data.loader import TargetFunction, TrainCollate, TrainView
from rtseg.data.transforms import Augmentation
from rtseg.errors import ConfigError, DataError, RtsegError
from rtseg.structures import Sample
from rtseg.training.distill import Answer, AnsweredTarget, DistilledTask
from rtseg.training.options import TrainData

FOLDER_DIGITS = 16
LOGITS = "logits"


@dataclass(frozen=True)
class AnswerCache:
    """Answers on disk: one file per input in `folder`."""

    folder: Path

    def path(self, image: NDArray[Any]) -> Path:
        """Return the file of an augmented image (H, W, 3)."""
        pixels = np.ascontiguousarray(image, np.float32)
        found = hashlib.sha256(str(pixels.shape).encode())
        found.update(pixels.data)
        return self.folder / f"{found.hexdigest()}.safetensors"

    def write(self, path: Path, answer: Answer) -> None:
        """Write the answer about one image; the file appears as a whole or not at all.

        Raises:
            DataError: A number does not fit into float16, or the file cannot be written.
        """
        tensors = {str(number): value for number, value in enumerate(answer.maps)}
        tensors |= {LOGITS: answer.logits} if answer.logits.numel() else {}
        halves = {name: value[0].to("cpu", torch.float16) for name, value in tensors.items()}
        if not all(value.isfinite().all() for value in halves.values()):
            raise DataError(
                "the teacher's answer does not fit into float16",
                where="distill.cache",
                fix="leave the cache out",
            )
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            save_file({name: value.contiguous() for name, value in halves.items()}, partial)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise DataError(
                f"cannot be written ({error})",
                where=str(path),
                fix="free space, or choose another distill.cache",
            ) from None

    def read(self, image: NDArray[Any]) -> dict[str, Tensor]:
        """Return the float32 tensors of the answer about an image.

        Raises:
            DataError: There is none, or it is damaged.
        """
        path = self.path(image)
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"an answer of the teacher cannot be read ({error})",
                where=str(path),
                fix="remove the file if it is there, and go on with --resume",
            ) from None
        return {name: value.float() for name, value in found.items()}


@dataclass(frozen=True)
class CachedTarget:
    """Make training targets that hold what the teacher once said. target: makes the labels."""

    cache: AnswerCache
    target: TargetFunction

    def __call__(self, samples: Sequence[Sample]) -> AnsweredTarget:
        """Stack labels and answers of equally large samples."""
        labels = self.target(samples)
        read = [self.cache.read(sample.image) for sample in samples]
        stacked = {name: torch.stack([item[name] for item in read]) for name in read[0]}
        logits = stacked.pop(LOGITS, torch.zeros(0))
        maps = tuple(stacked[str(number)] for number in range(len(stacked)))
        return AnsweredTarget(labels, Answer(maps, logits))


def answer_cache(task: DistilledTask, data: TrainData, folder: str) -> AnswerCache:
    """Return the cache for a task and its data; nothing is written yet.

    Args:
        task: Whose teacher is asked.
        data: What is read.
        folder: Of all caches.

    Raises:
        ConfigError: The images change from epoch to epoch.
    """
    _require_fixed(data.augment)
    names = [pair.teacher for pair in task.pairs]
    depends = (task.teacher.sha256, names, task.options.aligns_scores, data.preprocess)
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()
    return AnswerCache(Path(folder) / digest[:FOLDER_DIGITS])


def _require_fixed(augment: Augmentation) -> None:
    if augment != Augment():
        raise ConfigError(
            "the images are augmented, so the teacher sees others in every epoch",
            where="distill.cache",
            fix="leave distill.cache out, or data.augment (data.preprocess.size sets the size)",
        )


def fill(cache: AnswerCache, task: DistilledTask, data: TrainData, *, device: torch.device) -> int:
    """Ask the teacher about every training image that has no answer yet; return how many had none.

    Args:
        cache: Where the answers go.
        task: Whose teacher is asked, in float32.
        data: The training set, its augmentation, which does nothing, and its preprocessing.
        device: Where the teacher computes.

    Raises:
        RtsegError: An image or a file cannot be read or written.
    """
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot be made ({error.strerror})",
            where=str(cache.folder),
            fix="choose another distill.cache",
        ) from None
    view = TrainView(data.train, data.augment, data.preprocess, seed=0)
    collate = TrainCollate(data.preprocess, task.target)
    task.to(device)
    asked = 0
    for index in range(len(data.train)):
        item = view[0, index]
        if isinstance(item, RtsegError):
            raise item
        path = cache.path(item.sample.image)
        if not path.exists():
            batch = collate([item])
            if isinstance(batch, RtsegError):
                raise batch
            cache.write(path, task.ask(batch.images.to(device)))
            asked += 1
    return asked
