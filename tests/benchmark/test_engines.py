from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from inference.tiny import draw, write_checkpoint, write_image
from rtseg.benchmark.engines import prepare, scenes


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("net"))


def job(net: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "path": str(net), "runtime": "torch", "precision": "fp32", "scope": "model", "batch": 2,
        "size": [48, 64], "device": "cpu", "threads": 1, "source_images": None,
    }  # fmt: skip
    return {**made, **changes}


def test_the_network_gets_a_batch_of_normalized_scenes(net: Path) -> None:
    prepared = prepare(job(net))
    output: Any = prepared.call()
    assert output.logits.shape[:2] == (2, 3)
    images = torch.from_numpy(scenes((48, 64), 2)).permute(0, 3, 1, 2)
    mean = torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1)
    with torch.inference_mode():
        expected = rtseg.load(net)((images - mean) / 60.0).logits
    torch.testing.assert_close(output.logits, expected, rtol=1e-3, atol=1e-4)
    engine = prepared.facts["engine"]
    assert (engine["name"], engine["version"]) == ("torch", torch.__version__.split("+")[0])
    assert engine["flags"] == {"memory": "channels_last"}
    assert prepared.facts["threads"] == 1
    assert prepared.finish() == {}


def test_precision_is_that_of_the_job(net: Path) -> None:
    full, half = (
        prepare(job(net, precision=name)).call().logits  # type: ignore[attr-defined]
        for name in ("fp32", "bf16")
    )
    assert 1e-5 < (full - half).abs().max() < 0.2 * full.abs().max()


def test_an_image_becomes_a_result_at_its_own_size(net: Path) -> None:
    prepared = prepare(job(net, scope="e2e", batch=1))
    prepared.call()
    prepared.call()
    stages = prepared.finish()["stages_ms"]
    assert list(stages) == ["read", "pre", "model", "post"]
    assert stages["model"] > 0


def test_files_are_read_and_drawn_in_turn(net: Path, tmp_path: Path) -> None:
    for number, size in enumerate(((40, 56), (48, 64))):
        write_image(tmp_path / f"{number}.png", *size)
    prepared = prepare(job(net, scope="stream", batch=1, source_images=str(tmp_path)))
    for _ in range(3):
        prepared.call()
    assert prepared.finish()["stages_ms"]["read"] > 0
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(rtseg.RtsegError, match=r"1\.png"):
        prepared.call()


def test_scenes_differ_and_repeat() -> None:
    first, again = scenes((48, 64), 2), scenes((48, 64), 2)
    assert first.shape == (2, 48, 64, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert first.dtype == draw(8, 8).dtype == np.uint8
