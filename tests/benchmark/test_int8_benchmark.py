"""The program that measures eight bits, with a stand-in for the engines."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import torch

from programs import load_program
from rtseg.inference.trial import Trial, TrialFailedError, run_trial


def test_ways_take_turns_and_one_that_fails_is_left_out(tmp_path: Path) -> None:
    program = load_program("benchmarks/int8.py")
    asked: list[tuple[str, str, str]] = []

    def answer(
        folders: dict[str, Path], images: torch.Tensor, *, runtime: str, threads: int
    ) -> dict[str, Trial]:
        assert (images.shape, threads) == ((1, 3, 8, 8), 2)
        ((precision, folder),) = folders.items()
        asked.append((folder.name, runtime, precision))
        if runtime == "onnxruntime" and precision == "int8":
            raise TrialFailedError("crashed (signal 11)")
        return {precision: Trial([], float(len(asked)))}

    program.run_trial = create_autospec(run_trial, side_effect=answer)
    found = program.measure(tmp_path, torch.zeros(1, 3, 8, 8), rounds=2, threads=2)
    ways = list(program.WAYS.values())
    assert asked == [*ways, *ways[:-1]]
    assert found["openvino f32"] == [1.0, 8.0]
    assert found["openvino int8 by nncf"] == [3.0, 10.0]
    assert found["onnxruntime int8"] == "crashed (signal 11)"
