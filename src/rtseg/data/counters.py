"""Random numbers that depend on counters only: the same in any process, from any step on."""

from __future__ import annotations

import numpy as np

ORDER, AUGMENTATION, CHOICE = 0, 1, 2
"""Streams: the order of an epoch, the changes of an image, what an epoch draws of a set."""


def counter_rng(stream: int, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Return the generator of one (stream, seed, epoch, index), the same in any process."""
    key = np.random.SeedSequence([stream, seed, epoch, index]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
