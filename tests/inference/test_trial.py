from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rtseg.inference import trial
from rtseg.inference.trial import TrialFailedError, median_ms, run_trial
from rtseg.runtimes import installed
from rtseg.structures import SemanticOutput
from runtimes.files import Net, write_onnx

needs_engine = pytest.mark.skipif(
    "onnxruntime" not in installed(), reason="onnxruntime is not installed"
)


@pytest.mark.slow
@needs_engine
def test_a_trial_returns_outputs_and_time_of_another_process(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "export", Net())
    scenes = torch.randn(2, 3, 32, 40)
    found = run_trial({"fp32": folder}, scenes, runtime="onnxruntime", threads=1)
    assert list(found) == ["fp32"]
    assert 0 < found["fp32"].milliseconds < 1000
    assert len(found["fp32"].outputs) == 2
    for output, scene in zip(found["fp32"].outputs, scenes, strict=True):
        assert isinstance(output, SemanticOutput)
        torch.testing.assert_close(output.logits, Net()(scene[None]).logits, rtol=1e-4, atol=1e-5)


def test_medians_are_of_turns_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    now = 0.0

    def model(name: str, *seconds: float) -> Callable[[torch.Tensor], None]:
        def run(_image: torch.Tensor) -> None:
            nonlocal now
            now += seconds[min(calls.count(name), len(seconds) - 1)]
            calls.append(name)

        return run

    monkeypatch.setattr(trial.time, "perf_counter", lambda: now)
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    slow_start = model("a", 9.0, 9.0, 9.0, 0.002)
    sometimes = model("b", *[0.001] * 7, 5.0, 0.001)
    found = median_ms([slow_start, sometimes], torch.zeros(1))
    assert found == pytest.approx([2.0, 1.0])
    assert "".join(calls) == "ab" * (trial.WARM_UP + trial.RUNS)
    calls.clear()
    monkeypatch.setattr(trial, "SECONDS", 1.0)
    median_ms([model("c", 0.05)], torch.zeros(1))
    assert len(calls) in (20, 21)


def pretend(folder: Path, text: str) -> str:
    """Return a program that stands in for Python and does something else."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nos.kill(os.getpid(), 11)", r"^crashed \(signal 11\)$"),
        ("import time\ntime.sleep(30)", "^took more than 1 s$"),
        ("raise RuntimeError('no such layer')", r"^failed \(RuntimeError: no such layer\)$"),
        ("raise SystemExit(3)", r"^failed \(no reason given\)$"),
    ],
)
def test_engines_that_fail_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(sys, "executable", pretend(tmp_path, text))
    monkeypatch.setattr(trial, "PATIENCE", 1.0)
    if "sleep" not in text:
        monkeypatch.setattr(trial, "PATIENCE", 60.0)
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(TrialFailedError, match=message):
        run_trial({"fp32": tmp_path}, images, runtime="openvino", threads=1)
