from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rtseg.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("results_page")
    sys.modules.pop("results_page")


def finished(folder: Path) -> Path:
    """Write what a finished job leaves."""
    result = folder / "dabnet" / "result"
    for name in ("test", "val", "plots"):
        (result / name).mkdir(parents=True)
    (result / "model.safetensors").write_bytes(b"weights")
    (result / "plots" / "loss.png").write_bytes(b"picture")
    (result / "test" / "per_class.csv").write_text(
        "name,iou,accuracy\nRoad,0.912345,0.95\nTram,,\n", encoding="utf-8"
    )
    summary = {
        "name": "dabnet", "recipe": "dabnet/camvid", "command": "rtseg train dabnet/camvid x=1",
        "reduced": True, "device": "CPU", "steps": 3000, "images_per_second": 4.25,
        "license": "none", "environment": {"versions": {"torch": "2.99"}},
        "scores": {
            "test": {"seen_in_training": False, "miou": 0.51239, "pixel_accuracy": 0.9},
            "val": {"seen_in_training": True, "miou": 0.7},
        },
    }  # fmt: skip
    (result / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder / "dabnet"


def test_the_page_is_up_to_date(script: Any) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == script.render(), "out of date: run `make docs` and commit docs/results.md"


def test_a_finished_job_is_copied_without_weights_and_shown(tmp_path: Path, script: Any) -> None:
    target = script.add(finished(tmp_path), tmp_path / "results")
    assert sorted(path.name for path in target.iterdir()) == [
        "plots", "summary.json", "test", "val",
    ]  # fmt: skip
    jobs = [job for job in script.JOBS if job.name in ("dabnet", "lsa_binet_no_rcad")]
    text = script.render(tmp_path / "results", jobs)
    assert (
        "| [dabnet](#dabnet) | `dabnet/camvid` | mIoU 51.24 | 67.04 | reduced, 3,000 steps | 0 "
        "| CPU |" in text
    )
    assert "| lsa_binet_no_rcad | `lsa_binet/camvid@no_rcad` | not trained | 66.12 |" in text
    assert "| camvid test | no | mIoU 51.24 |\n| camvid val | yes | mIoU 70.00 |" in text
    assert "| Road | 91.23 |\n| Tram | absent |" in text
    assert "`rtseg train dabnet/camvid x=1`" in text
    assert "4.2 images/s" in text
    assert "## lsa_binet_no_rcad" not in text


def test_pictures_of_weights_that_ship_are_shown(tmp_path: Path, script: Any) -> None:
    script.add(finished(tmp_path), tmp_path / "results")
    jobs = [job for job in script.JOBS if job.name == "dabnet"]
    assert "pictures/" not in script.render(tmp_path / "results", jobs)
    (tmp_path / "results" / "pictures").mkdir()
    for name in ("dabnet-camvid_roads", "other_scenes"):
        (tmp_path / "results" / "pictures" / f"{name}.jpg").write_bytes(b"picture")
    text = script.render(tmp_path / "results", jobs)
    assert "(results/pictures/dabnet-camvid_roads.jpg)" in text
    assert text.count("pictures/") == 1


def test_a_job_that_is_not_finished_is_refused(tmp_path: Path, script: Any) -> None:
    (tmp_path / "dabnet").mkdir()
    with pytest.raises(DataError, match="holds no finished job; train it to its end first"):
        script.add(tmp_path / "dabnet", tmp_path / "results")
    assert not (tmp_path / "results").exists()
