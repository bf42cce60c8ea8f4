"""Fixtures for real data, which is not part of the repository: `RTSEG_DATA` names its folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FALSE_VALUES = {"", "0", "false", "no", "off"}


def _real_data(name: str) -> Path:
    """Return a file or folder below `RTSEG_DATA`; skip without it, but fail where `CI` is set."""
    folder = os.environ.get("RTSEG_DATA", "")
    if folder and (Path(folder) / name).exists():
        return Path(folder) / name
    reason = f"RTSEG_DATA={folder!r} holds no {name}: real data is not there"
    if os.environ.get("CI", "").lower() not in FALSE_VALUES:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is remembered out of the home of whoever runs the tests; run networks by torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RTSEG_CACHE", raising=False)
        patch.setenv("RTSEG_RUNTIME", "torch")  # instead of an export for every small network
        yield


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """A few frames of CamVid (4 train, 2 val, 2 test) in its published layout."""
    return _real_data("samples/camvid11")


@pytest.fixture(scope="session")
def camvid32_classes() -> Path:
    """The 32 labels of CamVid: name, color, and id among the 11 classes, as CSV."""
    return _real_data("camvid32_classes.csv")


@pytest.fixture(scope="session")
def cityscapes_sample() -> Path:
    """A reduced frame of Cityscapes with all its masks, without folders of split and city."""
    return _real_data("samples/cityscapes")


@pytest.fixture(scope="session")
def coco_panoptic_sample() -> Path:
    """Two images of COCO: panoptic ground truth, a prediction, and the published tool's scores."""
    return _real_data("samples/coco_panoptic")


@pytest.fixture(scope="session")
def bdd100k_sample() -> Path:
    """3 train frames and 1 val frame of BDD100K with drivable and lane masks."""
    return _real_data("samples/bdd100k")


@pytest.fixture(scope="session")
def ade20k_sample() -> Path:
    """Two val images of ADE20K with their masks, and the published table of classes."""
    return _real_data("samples/ade20k")


@pytest.fixture(scope="session")
def voc_sample() -> Path:
    """Two images of PASCAL VOC with palette masks; without lists."""
    return _real_data("samples/voc")


@pytest.fixture(scope="session")
def camvid_full_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 701 frames of CamVid, unpacked; for slow tests."""
    source = _real_data("camvid11.zip")
    folder = tmp_path_factory.mktemp("camvid")
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    return folder / "camvid11"


@pytest.fixture(scope="session")
def camvid_table() -> list[list[float]]:
    """For each class of CamVid what was counted once over all masks, independently of the package.

    Id; train pixels, share in percent, images, median-frequency and logarithmic weight; val and
    test pixels.
    """
    text = _real_data("README.md").read_text(encoding="utf-8")
    rows = [line.replace(",", "").split("|")[1:-1] for line in text.splitlines()]
    counted = [row for row in rows if len(row) == 9 and row[0].strip().isdigit()]
    return [[float(cell) for cell in (row[0], *row[2:])] for row in counted if "-" not in row[5]]
