"""`rtseg export`: a network as files that other engines run, compared with the network."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.errors import ConfigError

if TYPE_CHECKING:
    from rtseg.export import Manifest

DYNAMIC: dict[str, tuple[str, ...] | None] = {
    "auto": None,
    "batch,hw": ("batch", "hw"),
    "batch": ("batch",),
    "hw": ("hw",),
    "none": (),
}
HEADS = ("format", "precision", "input", "MB", "seconds", "relative error", "same class")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder.")],
    *,
    format_names: Annotated[
        str,
        typer.Option(
            "--format", help="onnx, openvino, torch_export, aoti, tensorrt; several with commas."
        ),
    ] = "onnx",
    output: Annotated[
        Path, typer.Option(help="Folder; with several formats each gets a folder inside.")
    ] = Path("exported"),
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    size: Annotated[
        str | None,
        typer.Option(help="Height and width of the input, such as 512x1024.", metavar="HxW"),
    ] = None,
    dynamic: Annotated[
        str,
        typer.Option(
            help="What may differ: batch, hw, both (batch,hw), none, or auto: all it can."
        ),
    ] = "auto",
    with_preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Take uint8 RGB and normalize inside.")
    ] = False,
    with_argmax: Annotated[
        bool, typer.Option("--with-argmax", help="Give classes instead of scores.")
    ] = False,
    shared: Shared,
) -> None:
    """Write a network as files that other engines run.

    Every file is compared with the network, at several sizes and numbers of images; one that
    differs is not written (exit code 6). A folder holds the file and manifest.json, which tells
    inputs, outputs, classes, preprocessing, and what the comparison found.
    """
    from rtseg.checkpoint import load
    from rtseg.export import export as write
    from rtseg.export import require_ready

    names = list(dict.fromkeys(format_names.split(",")))
    folders = {name: output / name if len(names) > 1 else output for name in names}
    for name, folder in folders.items():  # before minutes of work on the first
        require_ready(name, folder, precision=precision, overwrite=shared.overwrite)
    options = {
        "precision": precision,
        "size": _size(size),
        "dynamic": _dynamic(dynamic),
        "with_preprocess": with_preprocess,
        "with_argmax": with_argmax,
        "overwrite": shared.overwrite,
    }
    loaded = load(checkpoint)
    done, rows = {}, []
    for name, folder in folders.items():
        started = time.perf_counter()
        shared.log(f"{name}: writing and comparing")
        manifest = write(loaded, name, folder, **options)  # type: ignore[arg-type]
        rows.append(_row(manifest, time.perf_counter() - started))
        shared.log(f"{name}: {rows[-1][3]} MB in {rows[-1][4]} s, at {folder}")
        done[name] = {"output": str(folder), "manifest": json.loads(manifest.to_json())}
    shared.finish({"exports": done}, make_table("", HEADS, rows, numbers=4))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise ConfigError(f"is {text!r}", where="--size", fix="write HxW, such as 512x1024")
    return int(found[1]), int(found[2])


def _dynamic(text: str) -> tuple[str, ...] | None:
    if text not in DYNAMIC:
        raise ConfigError(f"is {text!r}", where="--dynamic", fix=f"use {', '.join(DYNAMIC)}")
    return DYNAMIC[text]


def _row(manifest: Manifest, seconds: float) -> Sequence[Any]:
    shape = "x".join("?" if side is None else str(side) for side in manifest.image.shape)
    error, agreement = manifest.parity["error"], manifest.parity["agreement"]
    return (
        manifest.format,
        manifest.precision,
        shape,
        f"{manifest.facts['bytes'] / 1e6:.1f}",
        f"{seconds:.0f}",
        "-" if error is None else f"{error:.1e}",
        f"{agreement:.3%}",
    )
