"""Files for the server of a benchmark: its ids, its names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.submission import SUBMISSIONS, submission_names, write_submission
from rtseg.errors import ConfigError, DataError

NAMES = [item.name for item in CITYSCAPES_CLASSES]


def test_class_ids_become_the_published_label_ids(tmp_path: Path) -> None:
    mask = np.arange(19, dtype=np.uint8).reshape(1, 19).repeat(2, 0)
    path = write_submission(tmp_path / "sub" / "x.png", mask, "cityscapes")
    with Image.open(path) as image:
        assert image.mode == "L"
        written = np.asarray(image)
    published = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert written.tolist() == [published, published]


def test_label_ids_lead_back_to_the_classes(cityscapes_sample: Path) -> None:
    def read(end: str) -> np.ndarray:
        (path,) = cityscapes_sample.rglob(f"*_{end}.png")
        return np.asarray(Image.open(path))

    train_ids, label_ids = read("labelTrainIds"), read("labelIds")
    scored = train_ids != 255
    table = np.array(SUBMISSIONS["cityscapes"].ids)
    # The sample's masks were shrunk one by one, so that some pixels on edges differ.
    assert (table[train_ids[scored]] == label_ids[scored]).mean() > 0.995


def test_names_begin_with_the_frame() -> None:
    sources = [
        Path("in/berlin_000000_000019_leftImg8bit.png"),
        Path("bad-honnef_000001_000002.png"),
    ]
    assert submission_names("cityscapes", sources, NAMES) == [
        "berlin_000000_000019_pred_labelIds.png", "bad-honnef_000001_000002_pred_labelIds.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["berlin.png", "berlin_0_1.png", "000000_000019.png", "berlin_000000_0000191_x.png"]
)
def test_images_that_are_no_frames_are_named(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: the name does not begin with <city>"):
        submission_names("cityscapes", [Path(name)], NAMES)


def test_the_same_frame_twice_is_refused() -> None:
    sources = [Path(f"{folder}/ulm_000000_000001_leftImg8bit.png") for folder in "ab"]
    with pytest.raises(DataError, match=r"^b/ulm.*is the same frame as a/ulm"):
        submission_names("cityscapes", sources, NAMES)


def test_other_classes_are_refused() -> None:
    for names in (NAMES[:-1], NAMES[::-1]):
        with pytest.raises(ConfigError, match="does not predict the 19 classes of cityscapes"):
            submission_names("cityscapes", [], names)
