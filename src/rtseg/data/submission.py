"""Predictions as the server of a benchmark takes them: its numbers, its file names.

Cityscapes: one gray PNG of label ids (7, 8, 11, ... for road, sidewalk, building, ...) for each
frame, of its size, whose name begins with `<city>_<sequence>_<frame>`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg import visualize
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.cityscapes_labels import SCORED_IDS
from rtseg.errors import ConfigError, DataError

_CITYSCAPES_FRAME = re.compile(r"[A-Za-z-]+_\d{6}_\d{6}(?!\d)")


class Submission(NamedTuple):
    """What a server expects.

    names: of the classes, by the ids that a network predicts. ids: the numbers in the files, by the
    same. file_name: source path -> name of the file.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    file_name: Callable[[Path], str]


def _cityscapes_name(source: Path) -> str:
    found = _CITYSCAPES_FRAME.match(source.stem)
    if found is None:
        raise DataError(
            "the name does not begin with <city>_<sequence>_<frame>",
            where=str(source),
            fix="predict frames of Cityscapes under their own names",
        )
    return f"{found[0]}_pred_labelIds.png"


SUBMISSIONS: dict[str, Submission] = {
    "cityscapes": Submission(
        tuple(item.name for item in CITYSCAPES_CLASSES), SCORED_IDS, _cityscapes_name
    )
}
"""Benchmarks by name."""


def submission_names(name: str, sources: Sequence[Path], classes: Sequence[str]) -> list[str]:
    """Return the name of the file for each source image.

    Args:
        name: Key of `SUBMISSIONS`.
        sources: Images.
        classes: Names of the classes that the network predicts, by id.

    Raises:
        ConfigError: The classes are not those of the benchmark.
        DataError: A name does not say which image it is, or two say the same.
    """
    benchmark = SUBMISSIONS[name]
    if tuple(classes) != benchmark.names:
        raise ConfigError(
            f"the network does not predict the {len(benchmark.names)} classes of {name}",
            where="checkpoint",
            fix=f"use one that was trained on {name}",
        )
    seen: dict[str, Path] = {}
    for source in sources:
        file_name = benchmark.file_name(source)
        if file_name in seen:
            raise DataError(
                f"is the same frame as {seen[file_name]}",
                where=str(source),
                fix="predict each frame once",
            )
        seen[file_name] = source
    return list(seen)


def write_submission(path: Path, mask: NDArray[Any], name: str) -> Path:
    """Write a map of predicted class ids (H, W) as a gray PNG of the benchmark's ids.

    Raises:
        DataError: The file cannot be written.
    """
    table = np.array(SUBMISSIONS[name].ids, np.uint8)
    content = io.BytesIO()
    Image.fromarray(table[mask]).save(content, "PNG")
    return visualize.write_bytes(path, content.getvalue())
