"""Write one export: trace, write, compare, and describe it in `manifest.json`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from rtseg import config
from rtseg.checkpoint import Checkpoint, load, sha256, versions
from rtseg.data.atomic import require_replaceable, whole_folder
from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError, RtsegError
from rtseg.export.choose import chooser
from rtseg.export.formats import DTYPES, FORMATS, Format, Write, require_format
from rtseg.export.graph import SMALLEST, Axis, Graph, Size, Traced, first_sentence, traces
from rtseg.export.int8 import Data, Images, Plan, engines, judge, open_images, plan, tolerance
from rtseg.export.known import remember
from rtseg.export.verify import GATES, Case, Gate, Reference, cases, verify
from rtseg.quantization import QuantizedNetwork
from rtseg.runtimes import MANIFEST, Manifest, Runtime, deployable, open_export
from rtseg.tasks import rebuild

Precision = Literal["fp32", "fp16", "bf16", "int8"]
CONTENT = (MANIFEST, "model.onnx", "model.onnx.data", "model.xml", "model.bin", "model.pt2",
           "model.engine")  # fmt: skip
"""Files that the folder of an export may hold."""
FRAME: Size = (512, 1024)
"""decision: without a size, a network is exported for what its preprocessing makes of a frame of
this size, on which street scenes are usually timed."""


def export(
    model: str | Path | Checkpoint,
    format_name: str,
    output: str | Path,
    *,
    precision: Precision = "fp32",
    size: Size | None = None,
    dynamic: Collection[Axis] | None = None,
    with_preprocess: bool = False,
    with_argmax: bool = False,
    calib: Data | None = None,
    calib_count: int = 256,
    gate: float = 1.0,
    overwrite: bool = False,
) -> Manifest:
    """Write the deployable form of a network as a file, and compare that file with the network.

    Args:
        model: Checkpoint or run folder, name of shipped weights, or what `rtseg.load` returned.
        format_name: Key of `FORMATS`.
        output: Folder that appears, or is replaced, when all is done and checked.
        precision: What the file computes in; its inputs and outputs stay float32.
        size: (H, W) of the input; without it what the preprocessing makes of a 512x1024 frame.
        dynamic: What an input may differ in: `batch` (number of images), `hw` (height and width).
            None: all that the network allows.
        with_preprocess: Normalize inside: the input is (B, H, W, 3) uint8 RGB. Resizing and
            padding stay outside.
        with_argmax: Resize and choose classes inside: the output is (B, H, W) uint8.
        calib: For int8: text that opens data, or data sets by split. Ranges are taken from `train`,
            the score is compared on `val`. A network that is quantized already needs none.
        calib_count: Images that are drawn of each of the two splits.
        gate: Points (hundredths) that the score may drop in int8.
        overwrite: Replace an old export.

    Returns:
        What `manifest.json` says, the report of the comparison included.

    Raises:
        ConfigError: An option is unknown, or fits neither the network nor the format.
        CheckFailedError: The file does not answer as the network does; nothing is left behind.
        MissingError: A package, compiler or device is not there.
        CheckpointError: The checkpoint cannot be read.
        DataError: The folder exists already or cannot be written.
    """
    chosen = require_ready(format_name, Path(output), precision=precision, overwrite=overwrite)
    checkpoint = model if isinstance(model, Checkpoint) else load(model)
    info = checkpoint.info
    preprocess = config.call(Preprocess, info.preprocess, section="preprocess")
    task = rebuild(info.task, info.classes, info.recipe.get("task", {}))
    choose = chooser(task) if with_argmax else None
    images = None if calib is None else open_images(calib, preprocess, count=calib_count)
    how = _plan(checkpoint, chosen, precision, images, where=format_name, pixels=with_preprocess)
    divisors = (preprocess.stride, preprocess.stride)
    graph = Graph(
        how.network,
        dtype=DTYPES.get(precision, torch.float32) if chosen.typed else torch.float32,
        preprocess=preprocess if with_preprocess else None,
        choose=choose,
    )
    found = traces(graph, _size(size, preprocess), divisors=divisors, axes=dynamic)
    with whole_folder(Path(output)) as folder:
        traced, file = _write(how.write, found, folder, where=format_name)
        manifest = Manifest(
            format=format_name,
            file=file,
            files={path.name: sha256(path) for path in sorted(folder.iterdir())},
            precision=precision,
            image=traced.image,
            outputs=traced.outputs,
            output=traced.output,
            divisors=divisors,
            with_preprocess=with_preprocess,
            with_argmax=with_argmax,
            config=json.loads(info.to_json()),
            facts=_facts(format_name, traced, folder),
        )
        _save(manifest, folder)
        reference = Reference(how.reference, preprocess, choose=choose)
        batches = cases(traced.size, axes=traced.axes, divisors=divisors)
        agreed = GATES.get(precision) or tolerance(how.reference, reference, batches)
        parity = _compare(manifest, folder, reference, batches, gate=agreed)
        if images is not None:
            whole = Reference(checkpoint.model, preprocess, choose=choose)
            opened = open_export(folder)
            parity["data"] = judge(checkpoint, opened, images, reference=whole, gate=gate)
        verified = dataclasses.replace(manifest, parity=parity)
        _save(verified, folder)
    remember(checkpoint.path, Path(output), verified)
    return verified


def _plan(
    checkpoint: Checkpoint,
    chosen: Format,
    precision: Precision,
    images: Images | None,
    *,
    where: str,
    pixels: bool,
) -> Plan:
    """Return what is traced, what writes it, and what it has to agree with."""
    model, write = checkpoint.model, chosen.write[precision]
    if precision == "int8":
        return plan(model, write, format_name=where, images=images, pixels=pixels)
    if images is not None:
        raise ConfigError(
            f"{precision} needs no images", where="calib", fix="leave it out, or use int8"
        )
    if isinstance(model, QuantizedNetwork):
        raise ConfigError(
            f"is a quantized network, whose rounding no file in {precision} holds",
            where=str(checkpoint.path),
            fix="use int8, or export the float checkpoint that it was made from",
        )
    return Plan(deployable(model), write, model)


def _compare(
    manifest: Manifest, folder: Path, reference: Reference, batches: Sequence[Case], *, gate: Gate
) -> dict[str, Any]:
    """Return the report of the engine that a file is for; in int8 others have to agree as well."""
    names = engines(folder, manifest) if manifest.precision == "int8" else ["auto"]
    reports = {}
    for name in names:
        device = "cuda" if manifest.format == "tensorrt" else "cpu"
        runtime = open_export(folder, runtime=name, device=device).model
        assert isinstance(runtime, Runtime)
        reports[runtime.engine] = verify(
            runtime,
            reference,
            batches,
            gate=gate,
            takes_pixels=manifest.with_preprocess,
            where=manifest.format if name == "auto" else f"{manifest.format} by {name}",
        )
    engine, *others = reports
    found = {name: reports[name]["agreement"] for name in others}
    return {**reports[engine], "engine": engine, **({"others": found} if found else {})}


def require_ready(
    format_name: str, folder: Path, *, precision: str, overwrite: bool = False
) -> Format:
    """Return the format if it can be written here, in a precision, into a folder.

    Raises:
        ConfigError: There is no such format or precision, or not together.
        MissingError: A package is not installed.
        DataError: The folder may not be written.
    """
    found = require_format(format_name, precision)
    require_replaceable(folder, CONTENT, overwrite=overwrite)
    return found


def _write(
    write: Write, found: Iterable[Traced], folder: Path, *, where: str
) -> tuple[Traced, str]:
    """Write the most general program that the format can hold; return it with the name of its file.

    Raises:
        ConfigError: The format holds none.
    """
    reasons = []
    for traced in found:
        try:
            return traced, write(traced, folder)
        except RtsegError:
            raise
        except Exception as error:  # exporters and compilers raise almost anything
            reasons.append(first_sentence(error))
    raise ConfigError(
        f"the network cannot be written as {where} ({reasons[0]})",
        where="format",
        fix="use --dynamic batch or none, or another format",
    )


def _size(size: Size | None, preprocess: Preprocess) -> Size:
    """Return the size of the example.

    Raises:
        ConfigError: The size asked for is too small or no multiple of the stride.
    """
    if size is None:
        meta = preprocess.measure(FRAME)
        (height, width), (rows, columns) = meta.input_size, meta.padding
        return height + rows, width + columns
    stride = preprocess.stride
    if min(size) < SMALLEST or any(side % stride for side in size):
        height, width = (max(SMALLEST, side) for side in size)
        fitting = f"{-(-height // stride) * stride}x{-(-width // stride) * stride}"
        raise ConfigError(
            f"{size[0]}x{size[1]} is smaller than {SMALLEST} or no multiple of the network's "
            f"stride {stride}",
            where="size",
            fix=f"use {fitting}",
        )
    return size


def _facts(format_name: str, traced: Traced, folder: Path) -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in FORMATS[format_name].packages}
    return {
        "versions": {**versions(), **packages},
        "size": list(traced.size),
        "dynamic": list(traced.axes),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "device": "cuda" if format_name == "tensorrt" else "cpu",
    }


def _save(manifest: Manifest, folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
