"""Programs that torch itself has written: `torch.export` (.pt2) and AOTInductor packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from rtseg.errors import CheckpointError
from rtseg.runtimes.manifest import Manifest


class ExportedProgram:
    """Run a program of `torch.export`.

    Args:
        path: The `.pt2` file.
        manifest: Of the file.
        device: Where it is moved to.
        threads: Threads of torch, for the whole process.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, device: torch.device, threads: int
    ) -> None:
        program = torch.export.load(path)
        if device.type != "cpu":
            program = move_to_device_pass(program, str(device))
        self.program: Any = program.module()
        self.manifest = manifest
        use_threads(threads)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs in the order of the manifest."""
        with torch.inference_mode():
            return _tensors(self.program(images))


class CompiledPackage:
    """Run a package that AOTInductor has compiled for one kind of device.

    Args:
        path: The `.pt2` file.
        manifest: Of the file; its facts name the kind of device.
        device: Of that kind.
        threads: Threads of torch, for the whole process.

    Raises:
        CheckpointError: The package was compiled for another device.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, device: torch.device, threads: int
    ) -> None:
        made_for = str(manifest.facts.get("device", "cpu"))
        if device.type != made_for:
            raise CheckpointError(
                f"was compiled for {made_for}", where=str(path), fix=f"use --device {made_for}"
            )
        self.package: Any = torch._inductor.aoti_load_package(str(path))
        self.manifest = manifest
        use_threads(threads)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs in the order of the manifest."""
        with torch.inference_mode():
            return _tensors(self.package(images))


def use_threads(threads: int) -> None:
    """Have torch compute with so many threads in this process."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _tensors(output: Any) -> list[Tensor]:
    """Return the tensors of an output; fields that hold none are left out."""
    if isinstance(output, Tensor):
        return [output]
    return [value for value in output if isinstance(value, Tensor)]
