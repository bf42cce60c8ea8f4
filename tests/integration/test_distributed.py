"""One recipe gives one curve: in one process or several, with whole batches or parts of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from integration import parity
from rtseg import checkpoint
from rtseg.training import run_log

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", parity.same_points(torch.rand))
    monkeypatch.setattr(run_log, "_tensorboard", lambda *_: None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs in one process, with whole batches, made when they are asked for."""
    return tmp_path_factory.mktemp("alone")


def assert_same(name: str, alone: Path, folder: Path) -> None:
    """Compare every loss term of every step, and the weights at the end, with those of one run."""
    runs = [parity.train(name, alone), folder / name]
    curves = [parity.curve(run) for run in runs]
    assert [len(curve) for curve in curves] == [parity.STEPS] * 2
    for step, (first, second) in enumerate(zip(*curves, strict=True)):
        assert second == pytest.approx(first, abs=TOLERANCE), (name, step)
    weights = [checkpoint.read_weights(run / "last") for run in runs]
    for key, start in parity.plan_of(name).model.state_dict().items():
        torch.testing.assert_close(weights[1][key], weights[0][key], rtol=1e-4, atol=TOLERANCE)
        if key == "stem.0.weight":
            assert (weights[0][key] - start).abs().max() > 100 * TOLERANCE


def check_parts(name: str, alone: Path, tmp_path: Path, *, parts: int) -> None:
    parity.train(name, tmp_path, accumulate=parts)
    assert_same(name, alone, tmp_path)


@pytest.mark.parametrize("name", ["ce", "things"])
def test_two_parts_of_a_batch_give_the_curve_of_the_whole(
    alone: Path, tmp_path: Path, name: str
) -> None:
    check_parts(name, alone, tmp_path, parts=2)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("name", [name for name, case in parity.CASES.items() if case.parts])
def test_parts_of_a_batch_give_the_curve_of_the_whole(
    alone: Path, tmp_path: Path, name: str, parts: int
) -> None:
    check_parts(name, alone, tmp_path, parts=parts)


def test_ratios_of_sums_are_those_of_each_part(tmp_path: Path) -> None:
    """Focal losses are means over pixels and agree; Tversky losses are not, as documented."""
    whole, parts = (
        parity.curve(parity.train("road", tmp_path / str(count), accumulate=count, iterations=1))[0]
        for count in (1, 2)
    )
    for kind in ("drivable", "lane"):
        assert parts[f"{kind}_focal"] == pytest.approx(whole[f"{kind}_focal"], abs=1e-6)
        assert parts[f"{kind}_tversky"] == pytest.approx(whole[f"{kind}_tversky"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_give_the_curves_and_gradients_of_one(
    alone: Path, tmp_path: Path, count: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, parity.__file__, str(tmp_path), str(count)]
    subprocess.run(command, env=environment, check=True, timeout=500)
    for name, case in parity.CASES.items():
        assert_same(name, alone, tmp_path)
        if count == 2 and case.parts:
            assert_same(name, alone, tmp_path / "parts")
    shares = [torch.load(tmp_path / f"losses{rank}.pt") for rank in range(count)]
    for name, (value, gradient) in parity.losses(0, 1).items():
        assert [share[name][0] for share in shares] == pytest.approx([value] * count, rel=1e-4)
        together = torch.cat([share[name][1] for share in shares])
        torch.testing.assert_close(together, gradient, rtol=1e-3, atol=1e-6)
