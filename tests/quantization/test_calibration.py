"""Which images ranges are taken from, and how they are told apart later."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtseg.data.transforms import Preprocess
from rtseg.errors import ConfigError, DataError
from rtseg.quantization import Calibration
from rtseg.structures import Sample

PREPROCESS = Preprocess(mean=(10, 20, 30), std=(2, 4, 5), stride=1)


def picture(number: int, *, height: int = 4) -> NDArray[Any]:
    return np.full((height, 6, 3), number, np.uint8)


def test_batches_hold_the_drawn_images_preprocessed() -> None:
    images = [picture(number) for number in range(10)]
    calibration = Calibration(images, PREPROCESS, count=5, seed=3, batch_size=2)
    assert len(set(calibration.indices)) == 5
    batches = list(calibration)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    values = torch.cat(batches)[:, :, 0, 0]
    expected = [[(n - 10) / 2, (n - 20) / 4, (n - 30) / 5] for n in calibration.indices]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_the_draw_follows_from_the_seed_alone() -> None:
    images = [picture(number) for number in range(50)]
    first = Calibration(images, PREPROCESS, count=20, seed=1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = Calibration(images, PREPROCESS, count=20, seed=1)
    assert first.indices == again.indices
    assert first.provenance() == again.provenance()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert Calibration(images, PREPROCESS, count=20, seed=2).indices != first.indices


def test_all_images_are_taken_where_there_are_fewer() -> None:
    calibration = Calibration([picture(1), picture(2)], PREPROCESS, count=256)
    assert sorted(calibration.indices) == [0, 1]


def test_a_batch_ends_where_the_size_changes() -> None:
    images = [picture(number, height=4 + 2 * (number % 2)) for number in range(8)]
    calibration = Calibration(images, PREPROCESS, batch_size=3)
    heights = [4 + 2 * (index % 2) for index in calibration.indices]
    batches = list(calibration)
    assert [batch.shape[2] for batch in batches for _ in batch] == heights
    assert all(len(batch) <= 3 for batch in batches)


def test_provenance_names_the_images_and_hashes_what_the_network_reads() -> None:
    samples = [Sample(picture(number), {}, path=f"road/{number}.png") for number in range(3)]
    told = Calibration(samples, PREPROCESS, count=2).provenance()
    chosen = Calibration(samples, PREPROCESS, count=2).indices
    assert told["paths"] == [f"road/{index}.png" for index in chosen]
    assert (told["count"], told["seed"]) == (2, 0)
    digest = hashlib.sha256()
    for index in chosen:
        values = PREPROCESS.fit(picture(index)).image
        digest.update(b"(3, 4, 6)" + values.contiguous().numpy().tobytes())
    assert told["sha256"] == digest.hexdigest()


@pytest.mark.parametrize("options", [{"count": 0}, {"batch_size": 0}, {"seed": -1}])
def test_wrong_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="too small"):
        Calibration([picture(0)], PREPROCESS, **options)


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        Calibration([], PREPROCESS)
