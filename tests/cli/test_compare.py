from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest

from rtseg.cli.main import main


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Write two runs that differ by their seed and their last score."""
    folders = []
    for seed, score in ((0, 0.5), (1, 0.7)):
        folder = tmp_path / f"seed <{seed}>"
        folder.mkdir()
        text = f"model: {{name: dabnet}}\ntrain: {{batch_size: 4, seed: {seed}}}\n"
        (folder / "config.yaml").write_text(text)
        events: list[dict[str, Any]] = [
            {"event": "train", "step": 10, "loss": 1.5, "lr": 0.1, "images_per_second": 2.0},
            {"event": "validation", "step": 10, "scores": {"miou": score}},
            {"event": "end", "step": 10, "scores": {"miou": score}},
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        folders.append(str(folder))
    return folders


def test_page_and_document_hold_the_same_figures(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "both.html"
    assert main(["compare", *runs, "--output", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [item["last"] for item in document["runs"]] == [0.5, 0.7]
    assert document["settings"] == {"train.seed": [0, 1]}
    (group,) = document["groups"]
    assert group["mean"] == pytest.approx(0.6)
    assert group["spread"] == pytest.approx(0.2 / 2**0.5)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "seed <0>" not in text  # escaped
    assert html.escape("seed <0>") in text
    assert text.count("data:image/png") == 5  # loss, rate, images/s; mIoU over steps and time
    assert "train.seed" in text
    assert "0.6000" in text


def test_table_is_printed_and_the_page_named(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "one.html"
    assert main(["compare", runs[1], "--output", str(page)]) == 0
    out = capsys.readouterr().out
    assert "0.7" in out
    assert f"written to {page}" in out


def test_existing_page_is_kept_unless_told(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert main(["compare", *runs, "--output", str(page)]) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert main(["compare", *runs, "--output", str(page), "--overwrite"]) == 0
    assert page.read_text() != "mine"


def test_wrong_arguments_are_explained(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *runs, "--output", str(tmp_path / "page.pdf")]) == 2
    assert "name a file *.html" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 3
    assert "rtseg train" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
