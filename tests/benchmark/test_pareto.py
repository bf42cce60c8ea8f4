from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmark.documents import document, failed, row
from rtseg.benchmark.pareto import Point, conditions, front, picture, points
from rtseg.errors import ConfigError
from rtseg.visualize.charts import _free_place


def point(name: str, speed: float, score: float) -> Point:
    return Point(name, speed, score, 10.0, ("torch", "fp32"))


def test_the_front_holds_what_nothing_beats() -> None:
    slow, middle, fast = point("a", 10, 0.8), point("b", 50, 0.7), point("c", 90, 0.6)
    beaten, even = point("d", 40, 0.69), point("e", 50, 0.65)
    assert front([even, fast, slow, beaten, middle]) == [slow, middle, fast]
    assert front([slow]) == [slow]
    assert front([point("x", 10, 0.5), point("y", 10, 0.5)]) == [point("x", 10, 0.5)]


def test_each_network_comes_with_its_fastest_measurement_and_score() -> None:
    scored = {"scores": {"miou": 0.7, "pixel_accuracy": 0.9}}
    documents = [
        document(row("a", ms=20.0, **scored), row("a", ms=10.0, runtime="torch", **scored)),
        document(failed("c"), row("b", ms=40.0)),
    ]
    found, metric = points(documents, {"b": 0.8}, metric=None)
    assert metric == "miou"
    assert [(item.name, item.speed, item.score) for item in found] == [
        ("b", 25.0, 0.8), ("a", 100.0, 0.7),
    ]  # fmt: skip
    assert {item.name: item.conditions[0] for item in found} == {"a": "torch", "b": "openvino"}
    assert {item.gflops for item in found} == {16.0}
    chosen, metric = points(documents, {"b": 0.8}, metric="pixel_accuracy")
    assert (metric, chosen[1].score) == ("pixel_accuracy", 0.9)


@pytest.mark.parametrize(
    ("rows", "scores", "told"),
    [
        ([row("a")], {}, "a has no score; add --score a=0.75"),
        ([row("a")], {"a": 0.5, "z": 0.5}, "names 'z', which was not measured"),
        ([row("a"), row("b", size=[64, 64])], {"a": 0.5, "b": 0.5}, "speeds with size"),
        ([row("a"), row("b", batch=4)], {"a": 0.5, "b": 0.5}, "speeds with batch 1 and 4"),
        ([row("a"), row("b", scope="e2e")], {"a": 0.5, "b": 0.5}, "speeds with scope"),
        ([row("a"), row("b", threads=8)], {"a": 0.5, "b": 0.5}, "speeds with threads 2 and 8"),
        ([failed("a")], {"a": 0.5}, "no measurement worked"),
    ],
)
def test_what_does_not_belong_into_one_picture_is_refused(
    rows: list[dict[str, Any]], scores: dict[str, float], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        points([document(*rows)], scores, metric=None)


def test_other_devices_do_not_belong_into_one_picture() -> None:
    documents = [document(row("a")), document(row("b"), device="Other")]
    with pytest.raises(ConfigError, match="device Some CPU and Other"):
        points(documents, {"a": 0.5, "b": 0.6}, metric=None)


def test_the_picture_names_every_network() -> None:
    documents = [document(row("a", ms=20.0), row("b", ms=10.0))]
    found, metric = points(documents, {"a": 0.7, "b": 0.6}, metric=None)
    note = conditions(documents)
    assert note == "Some CPU, 512x1024, batch 1, threads 2"
    both, alone = picture(found, metric=metric, note=note), picture(found[:1], metric="m", note="")
    assert both.dtype == np.uint8
    assert both.shape == alone.shape
    colors = {tuple(color) for color in both.reshape(-1, 3)}
    assert {(37, 99, 235), (234, 88, 12)} <= colors, "a disc of each"
    assert (234, 88, 12) not in {tuple(color) for color in alone.reshape(-1, 3)}


def test_captions_stand_beside_discs_and_cover_nothing() -> None:
    box = (0.0, 0.0, 300.0, 300.0)

    def place(x: float, y: float, *others: tuple[float, float, float, float]) -> Any:
        taken = [(x - 10, y - 10, x + 10, y + 10), *others]
        where = _free_place((x, y, 10.0), 50, taken, box)
        left, middle = where
        assert taken[-1] == (left, middle - 10, left + 50, middle + 10), "it is taken now"
        return where

    assert place(100, 100) == (118, 100)  # 8 pixels to the right
    assert place(280, 100) == (212, 100), "the picture ends on the right"
    assert place(100, 100, (130, 95, 140, 105)) == (32, 100), "something stands on the right"
    right, left = (119, 80, 300, 120), (0, 80, 81, 120)
    assert place(100, 100, right, left) == (75, 58), "above what stands beside"
