"""What an evaluation writes: tables, pictures, and a page that needs no other file."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.evaluation import Evaluation, score, write_evaluation, write_report
from rtseg.evaluation.pictures import bar_pictures, worst_pictures
from rtseg.structures import Sample
from training.toy import CLASSES, PREPROCESS, Pictures, Toy

PROTOCOL = {"model": "toy", "data": "pictures <of> noise", "split": "val", "window": [4, 8]}


class Weathered(Pictures):
    def __getitem__(self, index: int, /) -> Sample:
        weather = ("rain", "sun & <shade>")[index % 2]
        return replace(super().__getitem__(index), attributes={"weather": weather})


def checkpoint(**rule: Any) -> Checkpoint:
    torch.manual_seed(0)
    preprocess = asdict(replace(PREPROCESS, **rule))
    return Checkpoint(Toy(), ModelInfo("toy", {}, "semantic", CLASSES, preprocess), Path())


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return score(checkpoint(), Weathered(4), by=["weather"], boundary=True, per_image=True, worst=2)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_what_was_counted(found: Evaluation, tmp_path: Path) -> None:
    files = write_evaluation(found, tmp_path, protocol=PROTOCOL)
    assert {key: path.name for key, path in files.items()} == {
        "metrics": "metrics.json", "per_class": "per_class.csv", "per_image": "per_image.csv",
        "by_weather": "by_weather.csv", "confusion": "confusion.png",
    }  # fmt: skip
    document = json.loads(files["metrics"].read_text(encoding="utf-8"))
    assert document["by"]["weather"] == found.group_rows()["weather"]
    assert document["protocol"] == PROTOCOL
    groups = rows_of(files["by_weather"])
    assert [(row["weather"], row["images"]) for row in groups] == [
        ("rain", "2"), ("sun & <shade>", "2"),
    ]  # fmt: skip
    assert float(groups[0]["miou"]) == found.groups["weather"][0].scores["miou"]
    images = rows_of(files["per_image"])
    assert [row["image"] for row in images] == [f"picture/{index}" for index in range(4)]
    assert images[1]["weather"] == "sun & <shade>"
    assert float(images[1]["image_miou"]) == found.per_image[1].mean
    classes = rows_of(files["per_class"])
    assert [float(row["boundary_iou"]) for row in classes] == [
        row["boundary_iou"] for row in found.per_class
    ]


class Page(HTMLParser):
    """Headings, cells of tables and pictures of a page; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: dict[str, list[str]] = {"h2": [], "td": [], "figcaption": [], "footer": []}
        self.images: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "img":
            self.images.append(dict(attributes)["src"])
        elif tag != "meta":
            self.open.append(tag)
        for value in dict(attributes).values():
            assert not str(value).startswith(("http", "/", "file"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] in self.found:
            self.found[self.open[-1]].append(text)


def test_the_page_shows_everything_and_needs_no_other_file(
    found: Evaluation, tmp_path: Path
) -> None:
    files = write_report(found, Weathered(4), tmp_path, protocol=PROTOCOL)
    assert {key: path.name for key, path in files.items()} == {
        "bars": "bars.png", "worst": "worst.png", "report": "report.html",
    }  # fmt: skip
    page = Page(files["report"].read_text(encoding="utf-8"))
    assert page.found["h2"] == ["Scores", "By weather", "Classes", "Lowest scores", "Confusion"]
    assert len(page.images) == 1 + 2 + 1
    assert all(address.startswith("data:image/png;base64,") for address in page.images)
    cells = page.found["td"]
    for text in ("sun & <shade>", "all", "middle", f"{found.scores['miou']:.4f}"):
        assert text in cells
    captions = [text for text in page.found["figcaption"] if text.startswith("picture/")]
    worst = found.worst[0].scores
    assert captions[0] == f"{worst.path}: mean IoU {worst.mean:.4f}, weather " + (
        "rain" if worst.number % 2 == 0 else "sun & <shade>"
    )
    assert "window: [4, 8]" in "".join(page.found["footer"])


def test_a_page_without_groups_and_pictures_is_shorter(tmp_path: Path) -> None:
    bare = score(checkpoint(), Pictures(2))
    files = write_report(bare, Pictures(2), tmp_path, protocol={})
    assert list(files) == ["bars", "report"]
    page = Page(files["report"].read_text(encoding="utf-8"))
    assert page.found["h2"] == ["Scores", "Classes", "Confusion"]


def test_the_sheet_shows_the_worst_images_with_their_errors(found: Evaluation) -> None:
    pictures = worst_pictures(found.worst, Weathered(4))
    assert len(pictures) == 2
    width = {picture.pixels.shape[1] for picture in pictures}
    assert len(width) == 1
    red = (pictures[0].pixels == np.array([225, 29, 72], np.uint8)).all(-1).mean()
    assert red > 0.02  # untrained: a good part of the map of errors


def test_images_are_shown_at_the_size_at_which_they_are_scored() -> None:
    small = score(checkpoint(size=(8, 12), score_at="input"), Pictures(2), worst=1)
    assert small.worst[0].result.mask.shape == (8, 12)
    (picture,) = worst_pictures(small.worst, Pictures(2))
    assert picture.pixels.ndim == 3


def test_bars_follow_the_scores_of_the_task() -> None:
    def rows(**scores: float | None) -> Evaluation:
        return Evaluation({}, [{"name": "a", **scores}], None, 0, 0.0)

    assert list(bar_pictures(rows(pq=0.5))) == ["bars"]
    assert np.array_equal(bar_pictures(rows(iou=0.5, accuracy=0.1))["bars"],
                          bar_pictures(rows(iou=0.5, accuracy=0.9))["bars"])  # fmt: skip
    assert bar_pictures(rows(tp=3)) == {}
    assert bar_pictures(Evaluation({}, [], None, 0, 0.0)) == {}


def test_the_files_of_the_report_are_pictures(found: Evaluation, tmp_path: Path) -> None:
    files = write_report(found, Weathered(4), tmp_path, protocol=PROTOCOL)
    with Image.open(files["worst"]) as sheet, Image.open(files["bars"]) as bars:
        assert sheet.size[1] > sheet.size[0] / 4
        assert bars.size[0] == 960
