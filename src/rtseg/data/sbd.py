"""The Semantic Boundaries Dataset: masks of the 20 VOC classes for 11,355 images of PASCAL VOC.

```
root/img/<image>.jpg              root: benchmark_RELEASE/dataset, or a folder above it
root/cls/<image>.mat              MATLAB files: GTcls.Segmentation, 0 = background, 1..20
root/train.txt  val.txt           one name per line (8,498 and 2,857)
```
Its own split is of little use, as most of VOC's val images are in it: `voc` trains on all of it but
these.

Source: Hariharan et al., "Semantic Contours from Inverse Detectors", and its released files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.data.files import FileFaultError, LabelTable
from rtseg.data.layout import first_folder
from rtseg.errors import DataError

_NESTED = ("", "dataset", "benchmark_RELEASE/dataset")
_LISTS = ("train.txt", "val.txt")


def sbd_folder(root: str | Path) -> Path:
    """Return the folder that holds `img` and `cls`: `root` or one below it.

    Raises:
        DataError: There is none.
    """
    top = Path(root)
    masks = first_folder([top / name / "cls" for name in _NESTED])
    if masks is None:
        raise DataError(
            "holds no folder cls",
            where=str(top),
            fix="set sbd_root to the folder benchmark_RELEASE of the download",
        )
    return masks.parent


def sbd_stems(folder: Path) -> set[str]:
    """Return the names of all images: both lists together.

    Raises:
        DataError: A list is missing or empty.
    """
    stems: set[str] = set()
    for name in _LISTS:
        path = folder / name
        try:
            listed = path.read_text(encoding="utf-8").split()
        except OSError as error:
            what = f"cannot read the list of images ({error.strerror})"
            fix = "restore the list of the download"
            raise DataError(what, where=str(path), fix=fix) from None
        if not listed:
            raise DataError("names no image", where=str(path), fix="restore the published list")
        stems.update(listed)
    return stems


@dataclass(frozen=True)
class MatOrPicture:
    """Read masks that are MATLAB files or pictures, by their suffix. table: what values mean."""

    table: LabelTable

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return labels, uint8 (H, W).

        Raises:
            FileFaultError: The file cannot be read, or holds a value without a label.
        """
        if path.suffix.lower() != ".mat":
            return self.table.read(path)
        return self.table.apply(read_class_mat(path), where=str(path))


def read_class_mat(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the raw values (H, W) of `GTcls.Segmentation` of a MATLAB file.

    Raises:
        FileFaultError: The file is missing, damaged, or holds no such field.
    """
    from scipy.io import loadmat

    if not path.exists():
        fix = "add the file, or remove its line in the list"
        raise FileFaultError("file is missing", kind="missing_mask", where=str(path), fix=fix)
    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # damaged files raise a dozen classes, as with pictures
        raise _unreadable(f"is truncated or no MATLAB file ({error})", path) from None
    values: Any = getattr(content.get("GTcls"), "Segmentation", None)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "ui":
        raise _unreadable("holds no GTcls.Segmentation with whole numbers (H, W)", path)
    if values.min(initial=0) < 0 or values.max(initial=0) > np.iinfo(np.uint16).max:
        raise _unreadable("holds values that are no class ids", path)
    return values.astype(np.uint16)


def _unreadable(what: str, path: Path) -> FileFaultError:
    fix = "copy it again from its source, or remove its line in the list"
    return FileFaultError(what, where=str(path), fix=fix)
