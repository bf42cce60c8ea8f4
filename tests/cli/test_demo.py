from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from rtseg.cli import demo
from rtseg.cli.main import main


@pytest.mark.slow
def test_demo_leaves_everything_that_it_points_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STEP_LIMITS", (3, 3))
    monkeypatch.setattr(demo, "SCORED", 3)
    monkeypatch.setattr(demo, "SHOWN", 2)
    out = tmp_path / "demo"
    assert main(["demo", "--output", str(out), "--minutes", "0.1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["steps"] == 3
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2 + 1 + 1 + 1
    assert "http" not in page.replace("http://www.w3.org", "")
    for number in range(2):
        scene = Image.open(out / "scenes" / f"scene_{number}.png")
        assert Image.open(out / "predictions" / f"scene_{number}.png").size == scene.size
        assert Image.open(out / "comparisons" / f"scene_{number}.png").size[0] > 2 * scene.size[0]
    assert json.loads((out / "metrics.json").read_text())["images"] == 3
    assert main(["demo", "--output", str(out), "--quiet"]) == 3


def test_demo_refuses_a_folder_with_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text("kept")
    assert main(["demo", "--output", str(tmp_path)]) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "kept"
