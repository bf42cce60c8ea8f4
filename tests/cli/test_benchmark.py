from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.documents import document, failed, row
from inference.tiny import write_checkpoint, write_image
from rtseg.benchmark import runs
from rtseg.cli.main import main


def written(path: Path, *rows: dict[str, Any], **changes: Any) -> str:
    path.write_text(json.dumps(document(*rows, **changes)), encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------- measuring
@pytest.mark.slow
def test_a_name_is_measured_with_random_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "twinmixing_nano", "--size", "64x64", "--quick", "--threads", "1"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    for part in (
        "QUICK", "random weights", "threads 1", "1x64x64", "torch fp32", "images/s", "driver",
        f"written to {tmp_path / 'out' / 'benchmark.json'}",
    ):  # fmt: skip
        assert part in shown.out
    (found,) = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert found["network"] == "twinmixing_nano"
    assert found["complexity"]["parameters"]["total"] == 24_167
    assert found["latency"]["iterations"] == 10
    assert found["latency"]["p50_ms"] > 0
    assert found["engine"]["name"] == "torch"
    assert main([*words, "--output", str(tmp_path / "out")]) == 3
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_engines_take_turns_and_come_near_the_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    net = write_checkpoint(tmp_path / "net")
    words = "--runtime torch,openvino --precision bf16 --size 64x96 --rounds 2 --quick"
    assert main(["benchmark", str(net), *words.split(), "--roofline", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content["roofline"]["peak_gflops"]) == {"bf16"}
    rows = {(item["runtime"], item["precision"]): item for item in content["rows"]}
    assert len(rows) == 2
    for (runtime, _), item in rows.items():
        assert 0 < item["share_of_peak"] < 1.5
        assert len(item["layers"]) == (3 if runtime == "openvino" else 0)
        assert sum(layer["share"] for layer in item["layers"]) < 1
        assert item["latency"]["images_per_second_std"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["e2e", "stream"])
def test_whole_images_and_files_are_measured(
    scope: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, image = write_checkpoint(tmp_path / "net"), write_image(tmp_path / "in" / "a.png")
    words = ["--source", str(image.parent)] if scope == "stream" else ["--size", "40x56"]
    assert main(["benchmark", str(net), "--scope", scope, *words, "--quick", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["rows"]
    assert found["size"] == [40, 56]
    assert found["stages_ms"]["model"] > 0
    assert (found["stages_ms"]["read"] > 0.05) == (scope == "stream")


def test_one_failure_gives_its_exit_code_and_keeps_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = document(row("good"), failed("bad", scope="model"))
    content["rows"][1]["error"] = {"message": "tensorrt is not installed", "exit_code": 5}
    monkeypatch.setattr(runs, "benchmark", lambda *_, **__: content)
    assert main(["benchmark", "good", "--json"]) == 5
    shown = capsys.readouterr()
    assert [item["network"] for item in json.loads(shown.out)["rows"]] == ["good", "bad"]
    assert "error: tensorrt is not installed" in shown.err


def test_options_arrive_as_they_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def fake(networks: Any, **options: Any) -> dict[str, Any]:
        given.append((networks, options))
        return document(row())

    monkeypatch.setattr(runs, "benchmark", fake)
    words = (
        "benchmark a b --runtime torch,openvino --precision fp32, --size 64x96 --batch 1,4"
        " --threads 2 --protocol twinmixing --rounds 3 --roofline --device cpu --quiet"
    )
    assert main(words.split()) == 0
    networks, options = given[0]
    assert networks == ["a", "b"]
    options.pop("log")
    assert options == {
        "runtime": ("torch", "openvino"), "precision": ("fp32",), "batch": (1, 4),
        "size": (64, 96), "scope": "model", "source": None, "device": "cpu", "threads": 2,
        "protocol": "twinmixing", "quick": False, "rounds": 3, "roofline": True,
    }  # fmt: skip
    assert main(["benchmark", "a", "--quiet"]) == 0
    assert given[1][1]["runtime"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no network is named"),
        (["x", "--size", "64"], "--size: is '64'"),
        (["x", "--size", "16x64"], "--size: is '16x64'"),
        (["x", "--batch", "1,many"], "--batch: is 'many'"),
        (["x", "--scope", "all"], "--scope: 'all' is unknown"),
        (["x", "--pareto", "out.pdf"], "name a file *.png"),
    ],
)
def test_wrong_options_are_explained(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *words]) == 2
    assert told in capsys.readouterr().err


def test_what_is_no_network_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(tmp_path / "bsdnet")]) == 4
    assert "or a network such as bsdnet_" in capsys.readouterr().err
    net = write_checkpoint(tmp_path / "net")
    assert main(["benchmark", str(net), "--runtime", "openvni"]) == 2
    assert "did you mean 'openvino'?" in capsys.readouterr().err


# ---------------------------------------------------------------- comparing
def test_a_slower_measurement_fails_the_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a.json", row(ms=100.0), row("b", ms=10.0))
    after = written(tmp_path / "b.json", row(ms=108.0), row("b", ms=9.0))
    assert main(["benchmark", "--compare", before, after]) == 6
    shown = capsys.readouterr()
    assert "+8.0%" in shown.out
    assert "1 of 2 measurements are more than 5.0% slower, such as bsdnet_s model" in shown.err
    assert main(["benchmark", "--compare", before, after, "--max-regression", "10%"]) == 0
    assert main(["benchmark", "--compare", before, after, "--max-regression", "0.1"]) == 0
    assert main(["benchmark", "--compare", after, before]) == 6, "b was faster after"
    capsys.readouterr()
    assert main(["benchmark", "--compare", before, after, "--json"]) == 6
    content = json.loads(capsys.readouterr().out)
    assert (content["passed"], content["max_regression"]) == (False, 0.05)
    assert [item["too_slow"] for item in content["changes"]] == [True, False]


def test_unlike_measurements_and_other_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a.json", row())
    after = written(tmp_path / "b.json", row(threads=1))
    assert main(["benchmark", "--compare", before, after]) == 2
    assert "threads 2 and 1" in capsys.readouterr().err
    assert main(["benchmark", "--compare", before, before, "--max-regression", "much"]) == 2
    assert "write 5% or 0.05" in capsys.readouterr().err
    assert main(["benchmark", "--compare", before, str(tmp_path / "c.json")]) == 3
    assert "does not exist" in capsys.readouterr().err


# ---------------------------------------------------------------- drawing
def test_a_picture_is_drawn_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = written(tmp_path / "a.json", row("a", scores={"miou": 0.7}), row("b", ms=10.0))
    second = written(tmp_path / "b.json", row("c", ms=30.0, scores={"miou": 0.6}))
    target = tmp_path / "out" / "pareto.png"
    words = ["benchmark", first, second, "--pareto", str(target)]
    assert main(words) == 2
    assert "b has no score; add --score b=0.75" in capsys.readouterr().err
    assert main([*words, "--score", "b"]) == 2
    assert "write NAME=0.75" in capsys.readouterr().err
    assert main([*words, "--score", "b=0.65", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {item["name"]: item["front"] for item in content["points"]} == {
        "a": True, "b": True, "c": False,
    }  # fmt: skip
    assert content["metric"] == "miou"
    with Image.open(target) as picture:
        assert picture.size == (960, 600)
    assert main([*words, "--score", "b=0.65"]) == 3
    assert "--overwrite" in capsys.readouterr().err
