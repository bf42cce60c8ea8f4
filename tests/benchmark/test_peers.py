from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from programs import load_program
from rtseg.benchmark.latency import summarize


@pytest.fixture(scope="module")
def peers() -> Any:
    return load_program("benchmarks/peers.py")


def job(**changes: Any) -> dict[str, Any]:
    made = {
        "network": "LR-ASPP MobileNetV3", "runtime": "torch", "precision": "fp32", "threads": 1,
        "scope": "model", "size": [64, 96],
    }  # fmt: skip
    return {**made, **changes}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package", "shape"),
    [
        ("LR-ASPP MobileNetV3", "torchvision", (64, 96)),
        ("FPN ResNet-18", "segmentation_models_pytorch", (64, 96)),
        ("SegFormer-B0", "transformers", (16, 24)),
    ],
)
def test_a_network_of_another_library_gives_the_same_in_both_engines(
    peers: Any, name: str, package: str, shape: tuple[int, int]
) -> None:
    pytest.importorskip(package)
    pytest.importorskip("openvino")
    plain = peers.prepare(job(network=name)).call()
    assert plain.shape == (1, 19, *shape)
    converted = peers.prepare(job(network=name, runtime="openvino"))
    torch.testing.assert_close(converted.call(), plain, rtol=1e-2, atol=1e-3)
    assert converted.facts["engine"]["name"] == "openvino"
    maps = [
        peers.prepare(job(network=name, scope="e2e", runtime=runtime)).call()
        for runtime in ("torch", "openvino")
    ]
    assert maps[0].shape == (64, 96)
    assert (maps[0] == maps[1]).mean() > 0.99
    if shape == (64, 96):
        assert (maps[0] == plain[0].argmax(0).numpy()).mean() > 0.999


def test_ours_and_theirs_are_measured_alike_and_in_turns(
    peers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    groups: list[list[dict[str, Any]]] = []

    def fake(specs: Any, protocol: Any, **_: Any) -> list[dict[str, Any]]:
        assert protocol.rounds == 5
        groups.append([spec.job for spec in specs])
        facts = {
            "error": None, "threads": 1, "latency": summarize([[0.02]], batch=1),
            "engine": {"name": "x", "version": "1", "flags": {}}, "peak_memory_mib": 1.0,
        }  # fmt: skip
        return [facts for _ in specs]

    monkeypatch.setattr(peers, "measure", fake)
    monkeypatch.setattr(peers, "engine_file", lambda subject, *_: subject.folder)
    monkeypatch.setattr(peers, "installed", lambda: ["LR-ASPP MobileNetV3"])
    words = ["--size", "64x96", "--ours", "twinmixing_nano", "--threads", "1", "--output"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *words, str(tmp_path / "out.json")])
    peers.main()
    assert len(groups) == 6
    for group in groups:
        shared = ("scope", "runtime", "precision", "batch", "size", "threads", "device", "protocol")
        assert len(group) == 2
        assert {key: group[0][key] for key in shared} == {key: group[1][key] for key in shared}
    ways = {(group[0]["scope"], group[0]["runtime"], group[0]["precision"]) for group in groups}
    assert ways == {
        (scope, *way)
        for scope in ("model", "e2e")
        for way in (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
    }  # fmt: skip
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["network"] for row in rows[:2]] == ["twinmixing_nano", "LR-ASPP MobileNetV3"]
    assert rows[1]["latency"]["images_per_second"] == pytest.approx(50)


def test_missing_libraries_are_named(
    peers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "torchvision":
            return "1.0"
        raise peers.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(peers.importlib.metadata, "version", version)
    assert peers.installed() == ["LR-ASPP MobileNetV3"]
    shown = capsys.readouterr().out
    assert "SegFormer-B0: transformers is not installed" in shown
