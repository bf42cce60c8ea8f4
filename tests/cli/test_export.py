from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.tiny import write_checkpoint
from rtseg.cli.main import main
from rtseg.export import writing
from rtseg.export.verify import Gate

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_checkpoint(folder / "best")
    return folder


@pytest.mark.slow
def test_two_formats_get_a_folder_each_and_one_document(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--format", "onnx,torch_export", "--size", "64x96", "--json"]
    assert main([*words, "--dynamic", "none", "--output", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)["exports"]
    assert list(document) == ["onnx", "torch_export"]
    for name, entry in document.items():
        folder = tmp_path / "out" / name
        assert entry["output"] == str(folder)
        assert entry["manifest"] == json.loads((folder / "manifest.json").read_text())
        assert f"{name}: writing and comparing" in captured.err
    assert document["onnx"]["manifest"]["image"]["shape"] == [1, 3, 64, 96]


def test_one_format_lies_in_the_folder_itself_and_is_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["export", str(run), "--format", "torch_export", "--size", "64x96", "--with-argmax"]
    assert main([*words, "--with-preprocess", "--dynamic", "batch", "--output", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "model.pt2"]
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "torch_export" in text]
    assert line.split()[:3] == ["torch_export", "fp32", "?x64x96x3"]
    assert line.split()[-2:] == ["-", "100.000%"]


def test_a_file_that_differs_ends_with_6_and_leaves_nothing(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(writing.GATES, "fp32", Gate(0.0, 1.0))
    words = ["export", str(run), "--format", "torch_export", "--size", "64x96", "--dynamic", "none"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 6
    assert "torch_export, 1 x 64 x 96: output 'logits' differs" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--format", "onnx,opnvino"], 2, "format 'opnvino' is unknown"),
        (["--size", "64,96"], 2, "--size: is '64,96'; write HxW"),
        (["--dynamic", "all"], 2, "--dynamic: is 'all'; use auto, batch,hw"),
        (["--precision", "int4"], 2, "precision 'int4' is unknown"),
        (["--format", "onnx", "--precision", "bf16"], 2, "or openvino or torch_export"),
        (["--size", "60x96"], 2, "use 64x96"),
        (["--precision", "int8"], 2, "calib: int8 needs images to take ranges from"),
        (["--precision", "int8", "--calib", "nowhere"], 3, "nowhere: does not exist"),
        (["--calib", "synthetic", "--set", "length=1"], 2, "calib: fp32 needs no images"),
    ],
)
def test_wrong_options_say_what_to_use(
    run: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", str(run), "--output", str(tmp_path / "out"), *options]) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_folder_is_looked_at_before_the_first_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch_export").mkdir()
    (tmp_path / "torch_export" / "mine.txt").touch()
    words = ["export", str(run), "--format", "onnx,torch_export", "--output", str(tmp_path)]
    assert main(words) == 3
    assert "torch_export: exists already" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


def test_no_checkpoint_is_exit_code_4(tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 4
