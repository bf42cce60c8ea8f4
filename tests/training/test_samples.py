from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtseg.errors import ConfigError
from rtseg.structures import Batch, ImageMeta, SemanticResult
from rtseg.training.samples import SampleSheet
from training.toy import CLASSES, Pictures, run, toy_plan

NAMES = tuple(item.name for item in CLASSES)
PALETTE = tuple(item.color for item in CLASSES)


def found(size: tuple[int, int], class_id: int) -> SemanticResult:
    return SemanticResult(np.full(size, class_id, np.uint8), NAMES, PALETTE)


def batch(*sizes: tuple[int, int]) -> Batch:
    metas = tuple(ImageMeta("", size, size, (0, 0)) for size in sizes)
    return Batch(None, None, metas)  # type: ignore[arg-type]


def test_first_results_are_drawn_over_their_images() -> None:
    data = Pictures(6, size=(420, 420))
    sheet = SampleSheet(data, count=2, every=3)
    sheet.collect(batch((420, 420)), [found((420, 420), 2)])
    sheet.collect(batch((420, 420), (420, 420)), [found((420, 420), 0), found((420, 420), 1)])
    picture = sheet.draw()
    assert picture is not None
    for place, class_id in ((0, 2), (3, 0)):
        mixed = np.round((data[place].image.astype(float) + PALETTE[class_id]) / 2)
        best = min(
            np.abs(picture[top : top + 420, left : left + 420].astype(float) - mixed).max()
            for top in range(picture.shape[0] - 419)
            for left in range(picture.shape[1] - 419)
            if np.abs(picture[top, left].astype(float) - mixed[0, 0]).max() <= 1
        )
        assert best <= 1


def test_image_follows_the_size_at_which_it_was_scored() -> None:
    sheet = SampleSheet(Pictures(1, size=(40, 60)), count=1)
    sheet.collect(batch((20, 30)), [found((20, 30), 1)])
    assert sheet.draw() is not None


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    sheet = SampleSheet(Pictures(1), count=0)
    sheet.collect(batch((16, 20)), [found((16, 20), 1)])
    assert sheet.draw() is None


def test_run_keeps_the_last_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(toy_plan(iterations=4, val_every=2, val=Pictures(3), show_images=2), tmp_path / "run")
    with Image.open(tmp_path / "run" / "plots" / "samples.png") as picture:
        assert picture.width >= 2 * 20
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Images("validation/samples")] == [2, 4]
    run(toy_plan(iterations=2, val_every=2, val=Pictures(3), show_images=0), tmp_path / "none")
    assert not (tmp_path / "none" / "plots" / "samples.png").exists()


def test_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.show_images"):
        toy_plan(iterations=1, show_images=-1)
