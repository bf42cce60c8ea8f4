"""What a run writes about itself: `log.jsonl`, `metrics.csv`, TensorBoard scalars, curves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize

Event = dict[str, Any]
"""One line of the log: `event` (train, validation, binarize, fault, note, end), `step`, figures."""
LOG, METRICS = "log.jsonl", "metrics.csv"
CURVES = ("miou", "pixel_accuracy", "mean_accuracy")
"""Scores that are drawn; of a task that has none of them, as many of its own, in their order."""


class RunLog:
    """Append events to the files of a run and hand each to the display.

    Args:
        folder: The run folder; None keeps nothing (ranks other than the first).
        display: Called with each event.
    """

    def __init__(self, folder: Path | None, *, display: Callable[[Event], None]) -> None:
        self.folder, self.display = folder, display
        self._board: Any = None

    def write(self, name: str, text: str) -> None:
        """Write a file of the run folder, such as its recipe."""
        if self.folder is not None:
            visualize.write_text(self.folder / name, text)

    def open(self, *, step: int) -> None:
        """Begin at `step`: events of later steps, from before a crash, and the end are dropped."""
        if self.folder is None:
            return
        events = [
            event
            for event in read_log(self.folder)
            if event["step"] <= step and event["event"] != "end"
        ]
        text = "".join(json.dumps(event) + "\n" for event in events)
        visualize.write_text(self.folder / LOG, text)
        self._write_metrics(events)
        self._board = _tensorboard(self.folder / "tensorboard", step)

    def add(self, event: str, *, step: int, **figures: Any) -> None:
        """Write one event."""
        line: Event = {"event": event, "step": step, **figures}
        if self.folder is not None:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if event == "validation":
                self._write_metrics(read_log(self.folder))
            if self._board is not None:
                _write_scalars(self._board, line)
        self.display(line)

    def show(self, picture: NDArray[np.uint8] | None, *, step: int) -> None:
        """Keep a picture (H, W, 3) of a validation: the last one as a file, each on the board."""
        if picture is None or self.folder is None:
            return
        visualize.write_image(self.folder / "plots" / "samples.png", picture)
        if self._board is not None:
            self._board.add_image("validation/samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard and draw the curves."""
        if self._board is not None:
            self._board.close()
        if self.folder is not None:
            draw_curves(self.folder)

    def _write_metrics(self, events: list[Event]) -> None:
        assert self.folder is not None
        rows = [
            {"step": event["step"], "epoch": event["epoch"], **event["scores"]}
            for event in events
            if event["event"] == "validation"
        ]
        if not rows:
            (self.folder / METRICS).unlink(missing_ok=True)
        else:
            buffer = io.StringIO()
            columns = dict.fromkeys(name for row in rows for name in row)
            writer = csv.DictWriter(buffer, fieldnames=list(columns))
            writer.writeheader()
            writer.writerows(rows)
            visualize.write_text(self.folder / METRICS, buffer.getvalue())


def read_log(folder: Path) -> list[Event]:
    """Return all events of a run; a last line that a crash cut short is left out."""
    path = folder / LOG
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def draw_curves(folder: Path) -> None:
    """Draw loss and score of a run to `plots/loss.png` and `plots/score.png`."""
    events = read_log(folder)
    loss = [
        (event["step"], event["loss"])
        for event in events
        if event["event"] == "train" and math.isfinite(event["loss"])
    ]
    validations = [event for event in events if event["event"] == "validation"]
    names = list(dict.fromkeys(name for event in validations for name in event["scores"]))
    chosen = [name for name in CURVES if name in names] or names[: len(CURVES)]
    scores: Mapping[str, list[tuple[float, float]]] = {
        name: [
            (event["step"], event["scores"][name])
            for event in validations
            if name in event["scores"]
        ]
        for name in chosen
    }
    if len(loss) > 1:
        picture = visualize.curves(
            {"training loss": loss}, title="Loss", xlabel="step", ylabel="loss"
        )
        visualize.write_image(folder / "plots" / "loss.png", picture)
    if scores:
        picture = visualize.curves(scores, title="Validation", xlabel="step", ylabel="score")
        visualize.write_image(folder / "plots" / "score.png", picture)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `train` brings it; the other logs are complete without
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _write_scalars(board: Any, line: Event) -> None:
    # a term may be called `loss` as well
    figures = {**line.get("terms", {}), **line, **line.get("scores", {})}
    for name, value in figures.items():
        if isinstance(value, (int, float)) and name not in ("step", "epoch"):
            board.add_scalar(f"{line['event']}/{name}", value, line["step"])
