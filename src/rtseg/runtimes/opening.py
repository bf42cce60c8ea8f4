"""Open an exported folder with an engine that is installed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtseg import checkpoint
from rtseg.checkpoint import Checkpoint
from rtseg.errors import CheckpointError, ConfigError, MissingError, RtsegError, nearest
from rtseg.runtimes.manifest import MANIFEST, Manifest, read_manifest
from rtseg.runtimes.network import NETWORKS
from rtseg.runtimes.onnxruntime import OnnxRuntime
from rtseg.runtimes.openvino import OpenVino
from rtseg.runtimes.ports import check_outputs, fit_input, name_outputs
from rtseg.runtimes.runtime import Runtime
from rtseg.runtimes.tensorrt import TensorRt
from rtseg.runtimes.torch_export import CompiledPackage, ExportedProgram

Opener = Callable[..., Callable[[Tensor], Sequence[Tensor]]]


class Engine(NamedTuple):
    """What opens files: the formats, the kinds of devices, and the package that it needs."""

    open: Opener
    formats: tuple[str, ...]
    devices: tuple[str, ...]
    package: str


ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(OnnxRuntime, ("onnx",), ("cpu", "cuda"), "onnxruntime"),
    "openvino": Engine(OpenVino, ("openvino", "onnx"), ("cpu",), "openvino"),
    "tensorrt": Engine(TensorRt, ("tensorrt",), ("cuda",), "tensorrt"),
    "torch_export": Engine(ExportedProgram, ("torch_export",), ("cpu", "cuda"), "torch"),
    "aoti": Engine(CompiledPackage, ("aoti",), ("cpu", "cuda"), "torch"),
}
"""Engines for exported files; of those that open a format the first is its own."""
RUNTIMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(NETWORKS, ()),
    **{name: engine.formats for name, engine in ENGINES.items()},
}
"""Everything that can run a network, and the export formats that it opens: none if it takes the
network itself."""


def open_export(
    folder: str | Path,
    *,
    runtime: str = "auto",
    device: str | torch.device = "cpu",
    threads: int | None = None,
    precision: str | None = None,
) -> Checkpoint:
    """Open what `rtseg export` wrote.

    Args:
        folder: It holds `manifest.json`.
        runtime: Key of `ENGINES`, or `auto` for the first one that opens the format, is installed
            and knows the device.
        device: Where to compute.
        threads: Threads to compute with; those of torch if left out.
        precision: What is computed in, if not in what the manifest says: a file of float weights
            can be run in `bf16` by OpenVINO.

    Returns:
        A checkpoint whose network is a `Runtime`.

    Raises:
        CheckpointError: The folder is damaged, or the file is not one that the engine reads.
        ConfigError: The runtime has no such name or does not open this format.
        MissingError: The engine is not installed.
    """
    path, place = Path(folder), torch.device(device)
    manifest = read_manifest(path)
    if precision is not None:
        manifest = dataclasses.replace(manifest, precision=precision)
    info = checkpoint.parse_info(manifest.config, where=path / MANIFEST)
    name = _choose(runtime, manifest, place, where=path)
    model = _open(name, path, manifest, device=place, threads=threads)
    return Checkpoint(model.eval(), info, path)


def installed(device: str | torch.device = "cpu") -> dict[str, str]:
    """Return the engines that are installed for a device, each with its version."""
    kind = torch.device(device).type
    return {
        name: _version(engine.package)
        for name, engine in ENGINES.items()
        if kind in engine.devices and importlib.util.find_spec(engine.package) is not None
    }


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):  # onnxruntime goes by two names
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "of unknown version"


def _choose(runtime: str, manifest: Manifest, device: torch.device, *, where: Path) -> str:
    """Return the name of the engine that shall open a file."""
    fitting = [name for name, engine in ENGINES.items() if manifest.format in engine.formats]
    if not fitting:
        raise CheckpointError(
            f"has the unknown format {manifest.format!r}", where=str(where), fix="update rtseg"
        )
    if runtime not in ("auto", *RUNTIMES):
        close = nearest(runtime, RUNTIMES, count=1)[0]
        raise ConfigError(f"runtime {runtime!r} is unknown", fix=f"did you mean {close!r}?")
    if runtime not in ("auto", *fitting):
        raise ConfigError(
            f"runtime {runtime!r} does not open files of the format {manifest.format}",
            where=str(where),
            fix=f"use auto or {' or '.join(fitting)}",
        )
    names = fitting if runtime == "auto" else [runtime]
    usable = [name for name in names if device.type in ENGINES[name].devices]
    if not usable:
        raise MissingError(
            f"{' and '.join(names)} cannot compute on {device}",
            fix=f"use --device {ENGINES[names[0]].devices[0]}",
        )
    there = installed(device)
    return next((name for name in usable if name in there), usable[0])


def _open(
    name: str, folder: Path, manifest: Manifest, *, device: torch.device, threads: int | None
) -> Runtime:
    """Open the file with an engine, as a runtime with the network's own input and output."""
    check_outputs(manifest)
    path = folder / manifest.file
    count = threads or torch.get_num_threads()
    try:
        engine = ENGINES[name].open(path, manifest, device=device, threads=count)
    except (RtsegError, MemoryError):
        raise
    except Exception as error:  # engines have no common class of errors
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot be opened by {name} ({reason})", where=str(path), fix="export again"
        ) from None

    def run(images: Tensor) -> Any:
        return name_outputs(engine(fit_input(images, manifest)), manifest)

    return Runtime(run, engine=name, precision=manifest.precision, device=device, manifest=manifest)
