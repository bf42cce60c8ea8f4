from __future__ import annotations

from rtseg.training.run_log import _write_scalars


class Board:
    """Keep what is written to it."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = (value, step)


def test_the_total_loss_is_not_hidden_by_a_term_of_that_name() -> None:
    board = Board()
    line = {"event": "train", "step": 7, "loss": 3.5, "terms": {"loss": 2.5, "dice": 1.0}}
    _write_scalars(board, line)
    assert board.scalars == {"train/loss": (3.5, 7), "train/dice": (1.0, 7)}


def test_scores_are_scalars_of_the_validation() -> None:
    board = Board()
    _write_scalars(board, {"event": "validation", "step": 2, "epoch": 1.0, "scores": {"miou": 0.5}})
    assert board.scalars == {"validation/miou": (0.5, 2)}
