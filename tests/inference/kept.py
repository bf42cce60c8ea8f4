"""A network on disk whose exports are made by hand in an instant, and trials that are scripted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtseg.checkpoint import Checkpoint, save
from rtseg.data.preprocess import Preprocess
from rtseg.export.known import remember
from rtseg.inference import automatic, exports
from rtseg.inference.automatic import with_runtime
from rtseg.inference.trial import Trial
from rtseg.runtimes import Port
from rtseg.structures import SemanticOutput
from runtimes.files import INFO, Net, write_manifest, write_onnx

SIZE = (80, 80)
"""Scores are 20 x 20: 2 pixels of 400 are half a percent."""
Wrong = Sequence[int] | Exception


class Workshop:
    """Stand in for the export and for trials, and note what was asked for.

    files: folder of an ONNX file of the network. any_size: whether exports take any size. fault:
    raised by the next exports. wrong: by precision, pixels that get the other class in the image
    and in the drawn street, or what the trial raises. times: by precision, milliseconds.
    """

    def __init__(self, files: Path) -> None:
        self.files, self.any_size = files, True
        self.fault: Exception | None = None
        self.wrong: dict[str, Wrong] = {"fp32": (0, 0), "bf16": (0, 0), "int8": (0, 0)}
        self.times = {"fp32": 5.0, "bf16": 2.0, "int8": 1.0}
        self.exported: list[tuple[int, int]] = []
        self.tried: list[str] = []
        self.notes: list[str] = []

    def export(self, _loaded: Checkpoint, form: str, output: Path, *, size: Any) -> None:
        self.exported.append(size)
        if self.fault is not None:
            raise self.fault
        output.mkdir(parents=True)
        shutil.copy(self.files / "model.onnx", output)
        sides = (None, None) if self.any_size else size
        write_manifest(output, format=form, image=Port("image", "float32", (None, 3, *sides)))

    def trial(self, folders: Mapping[str, Path], images: Tensor, **_: Any) -> dict[str, Trial]:
        self.tried.append("+".join(folders))
        return {precision: self._trial(images, precision) for precision in folders}

    def _trial(self, images: Tensor, precision: str) -> Trial:
        wrong = self.wrong[precision]
        if isinstance(wrong, Exception):
            raise wrong
        outputs = []
        for image, count in zip(images, wrong, strict=True):
            logits = Net()(image[None]).logits.detach().flatten(2)
            logits[..., :count] = -logits[..., :count]
            outputs.append(SemanticOutput(logits.unflatten(2, (20, 20))))
        return Trial(outputs, self.times[precision])

    def make_int8(self, network: Path, output: Path, **facts: Any) -> Path:
        """Make an int8 export of a checkpoint as its user would."""
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.files / "model.onnx", output)
        image = Port("image", "float32", (None, 3, None, None))
        given = {"precision": "int8", "image": image, **facts}
        remember(network, output, write_manifest(output, **given))
        return output

    def open(self, folder: Path, runtime: str = "auto", threads: int = 1) -> Any:
        """Return what shall run the network of a checkpoint folder."""
        loaded = Checkpoint(Net().eval(), INFO, folder)
        return with_runtime(
            loaded, Preprocess(stride=4), runtime=runtime, device=torch.device("cpu"),
            threads=threads, notify=self.notes.append,
        ).model  # fmt: skip


def write_network(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint of the small network."""
    save(folder, Net(seed=seed).state_dict(), INFO)
    return folder


def make_workshop(
    files: Path, cache: Path, patch: pytest.MonkeyPatch, *, torch_ms: float = 10.0
) -> Workshop:
    """Put a workshop in the place of the export and of trials."""
    shop = Workshop(files)
    patch.setenv("RTSEG_CACHE", str(cache))
    patch.setenv(automatic.VARIABLE, "auto")
    patch.setattr(exports, "export", shop.export)
    patch.setattr(automatic, "run_trial", shop.trial)
    patch.setattr(automatic, "median_ms", lambda *_: [torch_ms])
    engines: Callable[..., dict[str, str]] = lambda *_: {"openvino": "1"}  # noqa: E731
    patch.setattr(automatic, "installed", engines)
    return shop


def write_files(folder: Path) -> Path:
    """Write the ONNX file that all exports of a workshop are copies of."""
    network: nn.Module = Net()
    return write_onnx(folder, network)
