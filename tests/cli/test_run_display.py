from __future__ import annotations

from rtseg.cli.run_display import Status, describe, duration

TRAIN = {
    "event": "train", "step": 20, "total": 40, "epoch": 0.5, "loss": 1.25,
    "terms": {"loss": 1.0, "aux": 0.25}, "lr": 0.001, "images_per_second": 12.345,
    "data_share": 0.021, "peak_memory_mb": 2048, "eta_seconds": 75.0,
}  # fmt: skip


def validation(step: int, **scores: float) -> dict[str, object]:
    return {"event": "validation", "step": step, "epoch": 1.0, "seconds": 2.0, "scores": scores}


def test_table_is_empty_before_the_first_step() -> None:
    assert Status().rows() == []


def test_table_tells_loss_speed_and_what_is_left() -> None:
    status = Status()
    status.add(TRAIN)
    assert dict(status.rows()) == {
        "loss": "1.2500  (loss 1.0000  aux 0.2500)",
        "learning rate": "0.001  epoch 0.50",
        "speed": "12.3 images/s  2% waiting for images  2,048 MB  75 s left",
    }


def test_best_stays_when_scores_fall() -> None:
    status = Status()
    for step, score in ((10, 0.4), (20, 0.6), (30, 0.5)):
        status.add(validation(step, other=0.9, miou=score))
    rows = dict(status.rows())
    assert rows["best"] == "miou 0.6000 at step 20"
    assert rows["validation 30"] == "miou 0.5000"


def test_validation_without_a_known_score_has_no_best() -> None:
    status = Status()
    status.add(validation(10, mine=1.0))
    assert [name for name, _ in status.rows()] == ["validation 10"]


def test_line_of_training_holds_all_figures() -> None:
    line = describe(TRAIN)
    for part in ("step 20/40", "loss 1.25", "eta 75 s", "img/s 12.35", "data 2%", "2048 MB"):
        assert part in line


def test_durations_are_rounded_to_what_matters() -> None:
    assert [duration(value) for value in (0.4, 89, 90, 3569, 3600, 5400)] == [
        "0 s", "89 s", "2 min", "59 min", "1 h 00 min", "1 h 30 min",
    ]  # fmt: skip
