"""What every test of recipes needs: one thread, and no pictures or event files of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.training.run_log._tensorboard", lambda *_: None)
    monkeypatch.setattr("rtseg.training.run_log.draw_curves", lambda _: None)
