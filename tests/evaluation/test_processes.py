"""One, two and three processes report the same numbers for sets of one to seven images."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from inference.tiny import write_checkpoint, write_image
from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.data.preprocess import Preprocess
from rtseg.data.views import Views
from rtseg.errors import ConfigError
from rtseg.evaluation import processes, score
from rtseg.structures import ClassInfo, MaskOutput, RoadLaneOutput, Sample, Segment, SemanticOutput

SIZES = range(1, 8)
STATS = Preprocess(mean=(127.5, 127.5, 127.5), std=(60.0, 60.0, 60.0), stride=8)


class Blocks:
    """A red car and a green person on black ground; the picture is shifted against its labels."""

    classes = (
        ClassInfo("ground", (0, 0, 0)),
        ClassInfo("car", (255, 0, 0), thing=True),
        ClassInfo("person", (0, 255, 0), thing=True),
    )
    kinds = ("semantic", "panoptic", "drivable", "lane")

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        labels = np.zeros((16, 24), np.uint8)
        labels[9:14, 12:20] = 2
        if index % 3 != 2:
            labels[2:8, 2 : 9 + index] = 1
        image = np.zeros((16, 24, 3), np.uint8)
        shifted = np.roll(labels, index % 4, axis=1)
        image[shifted == 1, 0] = image[shifted == 2, 1] = 255
        crowd = index == 4
        segments = [Segment(1 + c, c, crowd=crowd and c == 2) for c in np.unique(labels).tolist()]
        ids = 1 + labels.astype(np.int32)
        ids[0], labels[0] = 0, 255  # void
        kinds = {
            "semantic": labels,
            "panoptic": ids,
            "drivable": np.where(labels == 255, 255, labels == 0).astype(np.uint8),
            "lane": np.where(labels == 255, 255, labels == 1).astype(np.uint8),
        }
        return Sample(image, kinds, tuple(segments), f"{index}.png")


class Colors(nn.Module):
    """Outputs of every task, read off the colors."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task

    def forward(self, images: Tensor) -> Any:
        red, green = images[:, :1], images[:, 1:2]
        logits = torch.cat([-red - green, red, green], dim=1)
        if self.task == "semantic":
            return SemanticOutput(logits)
        if self.task == "road_lane":
            top = torch.maximum(red, green)
            return RoadLaneOutput(torch.cat([top, -top], 1), torch.cat([-red, red], 1))
        return MaskOutput(9 * F.one_hot(torch.arange(3), 4).float()[None], 3 * logits)


def evaluation(task: str, count: int) -> dict[str, Any]:
    data = Blocks(count)
    options = {"name": task}
    info = ModelInfo("", {}, task, data.classes, asdict(STATS), {"task": options})
    checkpoint = Checkpoint(Colors(task), info, Path())
    pixels = task == "semantic"
    ranked = task != "instance"
    found = score(
        checkpoint, data, boundary=pixels, per_image=ranked, worst=2 if ranked else 0,
        views=Views(flip=pixels),
    )  # fmt: skip
    return {
        "scores": found.scores,
        "classes": found.per_class,
        "images": found.images,
        "per_image": [entry.path for entry in found.per_image],
        "worst": [item.scores.path for item in found.worst],
        "matrices": {name: m.tolist() for name, (m, _) in found.metric.matrices().items()},
    }


TASKS = ("semantic", "road_lane", "panoptic", "instance")


def report(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
    )
    found = {f"{task} {count}": evaluation(task, count) for task in TASKS for count in SIZES}
    (folder / f"{world}_{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_any_number_of_processes_reports_the_numbers_of_one(tmp_path: Path) -> None:
    expected = {f"{task} {count}": evaluation(task, count) for task in TASKS for count in SIZES}
    assert expected["semantic 7"]["images"] == 7
    main = {"semantic": "miou", "road_lane": "lane_accuracy", "panoptic": "pq", "instance": "ap"}
    for task, name in main.items():
        assert 0.2 < expected[f"{task} 7"]["scores"][name] < 0.98
    for world in (1, 2, 3):
        torch.multiprocessing.spawn(report, args=(world, tmp_path), nprocs=world)
        for rank in range(world):
            reports = json.loads((tmp_path / f"{world}_{rank}.json").read_text())
            assert reports.keys() == expected.keys()
            for name, found in reports.items():
                same(found, expected[name])


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Integers must be equal; sums of fractions (PQ) may be added in another order."""
    for key in ("images", "per_image", "worst", "matrices"):
        assert found[key] == expected[key]
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-12)
    for row, other in zip(found["classes"], expected["classes"], strict=True):
        assert row == pytest.approx(other, abs=1e-12)
        counts = {key: value for key, value in other.items() if isinstance(value, int)}
        assert {key: row[key] for key in counts} == counts


# ---------------------------------------------------------------- joining
def test_alone_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.place() == (0, 1)
    with processes.joined(torch.device("cpu")) as place:
        assert place == (0, 1)
    assert processes.gathered([1, 2]) == [1, 2]


def test_a_launcher_that_left_something_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE: is set, but MASTER_ADDR not"),
        processes.joined(torch.device("cpu")),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "world", "there", "expected"),
    [
        ("auto", "2", True, "cuda:1"), ("cuda", "2", True, "cuda:1"), ("cpu", "2", True, "cpu"),
        ("cuda:0", "2", True, "cuda:0"), ("auto", "2", False, "auto"), ("auto", "1", True, "auto"),
    ],
)  # fmt: skip
def test_every_process_takes_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, world: str, there: bool, expected: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert processes.device_of_process(name) == expected


# ---------------------------------------------------------------- the command line
def write_data(root: Path) -> Path:
    lines = ["splits: [val]", "classes:"]
    for index, name in enumerate(("road", "car", "sky")):
        lines.append(f"  {index}: {{name: {name}, color: [{index}, 0, 0]}}")
    for index in range(5):
        write_image(root / "images" / "val" / f"{index}.png", seed=index)
        mask = write_image(root / "masks" / "val" / f"{index}.png", seed=9)
        Image.open(mask).convert("L").point(lambda value: value // 86).save(mask)
    (root / "data.yaml").write_text("\n".join(lines) + "\n")
    return root


def launch(folder: Path, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Run `rtseg val` in two processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "rtseg", "val", str(folder / "model"), "--data"]
    command += [str(folder / "data"), "--output", str(folder / "two"), *arguments]
    started = [
        subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    ended = []
    try:
        for process in started:
            out, err = process.communicate(timeout=240)
            ended.append(subprocess.CompletedProcess(command, process.returncode, out, err))
    finally:
        for process in started:
            process.kill()  # one that waits for another in vain would wait for ever
    return ended


@pytest.mark.slow
def test_two_launched_processes_write_one_evaluation(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model")
    data = write_data(tmp_path / "data")
    first, second = launch(tmp_path, "--json", "--per-image", "--report", "--worst", "2")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert second.stdout == ""
    document = json.loads(first.stdout)
    assert document["protocol"]["processes"] == 2
    from rtseg.cli.main import main

    arguments = ["val", str(tmp_path / "model"), "--data", str(data), "--per-image", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "one")]) == 0
    alone = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert document["scores"] == alone["scores"]
    assert document["per_class"] == alone["per_class"]
    tables = [(tmp_path / name / "per_image.csv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert (tmp_path / "two" / "report.html").is_file()
    refused = launch(tmp_path, "--by", "weather", "--overwrite")
    assert {item.returncode for item in refused} == {2}
    assert "start without torchrun" in refused[0].stderr
