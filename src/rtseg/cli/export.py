"""`rtseg export`: a network as files that other engines run, compared with the network."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import SetOption, Shared, make_table, reader_options
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
EIGHT_BITS = "Eight bits"
CalibOption = Annotated[
    str | None,
    typer.Option(
        help="Data for int8, as for val: ranges from train, scores compared on val.",
        metavar="DATA",
        rich_help_panel=EIGHT_BITS,
    ),
]
CountOption = Annotated[
    int, typer.Option(help="Images drawn of each split.", min=1, rich_help_panel=EIGHT_BITS)
]
GateOption = Annotated[
    float, typer.Option(help="Points that a score may drop.", min=0, rich_help_panel=EIGHT_BITS)
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", help="onnx, openvino, torch_export, aoti, tensorrt; several with commas."
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(help="Height and width of the input, such as 512x1024.", metavar="HxW"),
]
DynamicOption = Annotated[
    str,
    typer.Option(help="What may differ: batch, hw, both (batch,hw), none, or auto: all it can."),
]
HEADS = ("format", "precision", "input", "MB", "seconds", "relative error", "same class")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder.")],
    *,
    format_names: FormatOption = "onnx",
    output: Annotated[
        Path, typer.Option(help="Folder; with several formats each gets a folder inside.")
    ] = Path("exported"),
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    size: SizeOption = None,
    dynamic: DynamicOption = "auto",
    with_preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Take uint8 RGB and normalize inside.")
    ] = False,
    with_argmax: Annotated[
        bool, typer.Option("--with-argmax", help="Give classes instead of scores.")
    ] = False,
    calib: CalibOption = None,
    data_options: SetOption = None,
    calib_count: CountOption = 256,
    gate: GateOption = 1.0,
    shared: Shared,
) -> None:
    """Write a network as files that other engines run.

    Every file is compared with the network, at several sizes and numbers of images; one that
    differs is not written (exit code 6). In int8 its score on real images may drop a little. A
    folder holds the file and manifest.json, which tells inputs, outputs, classes, preprocessing,
    and what the comparison found.
    """
    from rtseg.checkpoint import load
    from rtseg.data.spec import open_splits
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
        "calib": open_splits(calib, options=reader_options(data_options)) if calib else None,
        "calib_count": calib_count,
        "gate": gate,
        "overwrite": shared.overwrite,
    }
    loaded = load(checkpoint)
    done, rows = {}, []
    for name, folder in folders.items():
        started = time.perf_counter()
        shared.log(f"{name}: writing and comparing")
        manifest = write(loaded, name, folder, **options)  # type: ignore[arg-type]
        rows.append(_row(manifest, time.perf_counter() - started))
        shared.log(f"{name}: {_cost(manifest)}{rows[-1][3]} MB in {rows[-1][4]} s, at {folder}")
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


def _cost(manifest: Manifest) -> str:
    """Say what eight bits cost, if that was measured."""
    data = manifest.parity.get("data", {})
    parts = [
        f"{name} {values['int8']:.4f} in int8, {values['fp32']:.4f} in fp32"
        for name, values in data.get("scores", {}).items()
    ]
    if "agreement" in data:
        parts = [f"{data['agreement']:.2%} of the pixels keep their class"]
    return "".join(f"{part}; " for part in parts)
