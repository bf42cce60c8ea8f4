"""What an exported folder says about itself: `manifest.json`, written by `export`, read here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rtseg.checkpoint import sha256
from rtseg.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of `manifest.json`."""


@dataclass(frozen=True)
class Port:
    """A named input or output: its element type, and its shape with None for any length.

    An image is (B, 3, H, W) float32, normalized, or with the preprocessing inside the file
    (B, H, W, 3) uint8 RGB.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Manifest:
    """The facts of one exported network.

    format: key of the export format, such as `onnx`. file: name of the file to open.
    files: SHA-256 of every file, by name. precision: `fp32`, `fp16`, `bf16` or `int8`.
    image: the input. outputs: in order, named as the fields of `output`.
    output: name of the tuple that a network of this task returns, such as `SemanticOutput`.
    divisors: what height and width of an input must be multiples of.
    with_preprocess, with_argmax: whether normalization and the choice of classes are inside.
    config: what `config.json` of the checkpoint held, so that task, classes and preprocessing can
    be built from it. parity: the report of the checks. facts: versions and sizes.
    """

    format: str
    file: str
    files: Mapping[str, str]
    precision: str
    image: Port
    outputs: tuple[Port, ...]
    output: str
    divisors: tuple[int, int]
    with_preprocess: bool
    with_argmax: bool
    config: Mapping[str, Any]
    parity: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps({"manifest": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def is_export(path: str | Path) -> bool:
    """Return whether a folder holds an exported network."""
    return (Path(path) / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` and check that the files beside it are those that were written.

    Raises:
        CheckpointError: It is missing, damaged or of a later version, or a file was changed.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("manifest")
        if version > FORMAT:
            raise CheckpointError(
                f"has format {version}, newer than {FORMAT}", where=str(path), fix="update rtseg"
            )
        ports = [
            Port(port["name"], port["dtype"], tuple(port["shape"]))
            for port in (content.pop("image"), *content.pop("outputs"))
        ]
        divisors = tuple(content.pop("divisors"))
        manifest = Manifest(**content, image=ports[0], outputs=tuple(ports[1:]), divisors=divisors)
    except FileNotFoundError:
        raise CheckpointError(
            "is not there", where=str(path), fix="give the folder that rtseg export wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"is damaged ({type(error).__name__}: {error})", where=str(path), fix="export again"
        ) from None
    for name, expected in manifest.files.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise CheckpointError(
                "is missing or was changed since the export", where=str(folder / name),
                fix="export again",
            )  # fmt: skip
    return manifest
