"""Read pictures of segment ids as a JSON file describes them: label readers of panoptic sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtseg.data.files import FileFaultError
from rtseg.data.json_file import load_json
from rtseg.data.panoptic_png import (
    FORMAT_ERRORS,
    VOID_ID,
    Descriptions,
    PanopticJson,
    describe_pictures,
    no_panoptic_json,
    read_panoptic_png,
)
from rtseg.structures import IGNORE_INDEX, Segment


@dataclass(frozen=True)
class PanopticTable:
    """Read pictures of segment ids, and tell their segments.

    file: the JSON file. folder: that its names of pictures count from. described: what it says.
    covered: whether segments may be hidden by others, as `read_panoptic_png` takes it. digest: of
    the content, which tells changed descriptions apart.
    """

    file: Path
    folder: Path
    described: Descriptions | PanopticJson = field(repr=False)
    covered: Literal["error", "allow"] = "error"
    digest: str = ""

    def read(self, path: Path) -> NDArray[np.int32]:
        """Return segment ids, int32 (H, W), 0 = void.

        Raises:
            FileFaultError: The file cannot be read, its description is wrong, or both disagree;
                kinds as in `panoptic_png`.
        """
        name = self._name(path)
        problem = self.described.problems.get(name)
        if problem is not None:
            raise self._fault(f"{problem.what} in {self.file.name}", problem.kind, path)
        if name not in self.described.segments and path.is_file():
            raise self._fault(f"is not described in {self.file.name}", "missing_entry", path)
        return read_panoptic_png(
            path,
            self.described.segments.get(name, ()),
            void=self.described.void.get(name, ()),
            areas=self.described.areas.get(name),
            covered=self.covered,
        )

    def segments(self, path: Path) -> tuple[Segment, ...]:
        """Return the segments that the JSON file lists for a picture."""
        return self.described.segments.get(self._name(path), ())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _fault(self, what: str, kind: str, path: Path) -> FileFaultError:
        fix = "correct the JSON file, or use picture and JSON file of one release"
        return FileFaultError(what, kind=kind, where=str(path), fix=fix)


@dataclass(frozen=True)
class ClassesOfSegments:
    """Read pictures of segment ids as `semantic` labels: each pixel has the class of its segment.

    Pixels of crowds count as their class.
    """

    panoptic: PanopticTable

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return class ids, uint8 (H, W); void is `IGNORE_INDEX`.

        Raises:
            FileFaultError: As `PanopticTable.read`.
        """
        return class_map(self.panoptic.read(path), self.panoptic.segments(path))


def class_map(ids: NDArray[np.int32], segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Return the class of every pixel, uint8 (H, W), of segment ids (H, W); void is ignored."""
    ordered = sorted(segments, key=lambda item: item.id)
    numbers = np.array([VOID_ID, *(item.id for item in ordered)], np.int32)
    labels = np.array([IGNORE_INDEX, *(item.class_id for item in ordered)], np.uint8)
    classes: NDArray[np.uint8] = labels[np.searchsorted(numbers, ids)]
    return classes


def file_digest(file: Path) -> str:
    """Return a text that another content of a file, which was read before, does not have."""
    return sha256(file.read_bytes()).hexdigest()[:16]


def load_table(
    file: Path, folder: Path, labels: Mapping[int, int], *, unmapped: Literal["error", "ignore"]
) -> PanopticTable:
    """Read the `annotations` of a JSON file alone; classes are defined elsewhere.

    Args:
        file: The JSON file.
        folder: That its names of pictures count from.
        labels: Class id or `IGNORE_INDEX` by category id.
        unmapped: What a category without an entry is, an error or void.

    Raises:
        DataError: The file is missing or does not have the format.
    """
    document = load_json(file)
    meaning: dict[int, int | None] = {
        key: None if label == IGNORE_INDEX else label for key, label in labels.items()
    }
    try:
        annotations = document["annotations"]
        if unmapped == "ignore":
            meaning = dict.fromkeys(_categories(annotations)) | meaning
        described = describe_pictures(annotations, meaning)
    except FORMAT_ERRORS as error:
        raise no_panoptic_json(error, file) from None
    return PanopticTable(file, folder, described, digest=file_digest(file))


def _categories(annotations: Sequence[Mapping[str, Any]]) -> set[int]:
    return {int(entry["category_id"]) for item in annotations for entry in item["segments_info"]}
