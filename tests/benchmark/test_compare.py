from __future__ import annotations

from typing import Any

import pytest

from benchmark.documents import document, failed, row
from rtseg.benchmark.compare import compare
from rtseg.errors import ConfigError


def test_five_percent_are_allowed_and_no_more() -> None:
    before = document(row(ms=100.0), row("lsa_binet", ms=10.0))
    after = document(row("lsa_binet", ms=9.0), row(ms=105.0), row("bsdnet_b", ms=1.0))
    first, second = compare(before, after, max_regression=0.05)
    assert first.subject == "bsdnet_s model openvino bf16 batch 1 512x1024"
    assert (first.before_ms, first.after_ms, first.too_slow) == (100.0, 105.0, False)
    assert first.change == pytest.approx(0.05)
    assert (second.change, second.too_slow) == (pytest.approx(-0.1), False)
    (slow,) = compare(document(row(ms=100)), document(row(ms=105.1)), max_regression=0.05)
    assert slow.too_slow
    (strict,) = compare(document(row(ms=100)), document(row(ms=100)), max_regression=0.0)
    assert not strict.too_slow


def test_what_worked_before_and_fails_now_is_too_slow() -> None:
    (change,) = compare(document(row()), document(failed()), max_regression=9.0)
    assert (change.after_ms, change.change, change.too_slow) == (None, None, True)


def test_what_failed_before_is_no_measure() -> None:
    changes = compare(document(failed(), row("b")), document(row("b")), max_regression=0.05)
    assert [item.subject.split()[0] for item in changes] == ["b"]
    with pytest.raises(ConfigError, match="has nothing that worked"):
        compare(document(failed()), document(row()), max_regression=0.05)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": [1024, 2048]}, r"size \[512, 1024\] and \[1024, 2048\]"),
        ({"batch": 4}, "batch 1 and 4"),
        ({"precision": "fp32"}, "precision bf16 and fp32"),
        ({"threads": 1}, "threads 2 and 1"),
        ({"network": "bsdnet_b"}, "the second file has no bsdnet_s model openvino"),
        ({"scope": "e2e"}, "the second file has no bsdnet_s model openvino"),
        ({"runtime": "torch"}, "the second file has no bsdnet_s model openvino"),
    ],
)
def test_unlike_measurements_are_not_compared(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compare(document(row()), document(row(**changes)), max_regression=0.05)


def test_other_devices_and_protocols_are_not_compared() -> None:
    before = document(row())
    with pytest.raises(ConfigError, match="device Some CPU and Other CPU"):
        compare(before, document(row(), device="Other CPU"), max_regression=0.05)
    quick = {**before["protocol"], "name": "quick"}
    with pytest.raises(ConfigError, match="was measured with protocol"):
        compare(before, document(row(), protocol=quick), max_regression=0.05)


def test_ambiguous_files_and_limits_are_refused() -> None:
    twice = document(row(ms=1), row(ms=2))
    with pytest.raises(ConfigError, match="stands twice: bsdnet_s"):
        compare(document(row()), twice, max_regression=0.05)
    with pytest.raises(ConfigError, match=r"--max-regression: is -0\.1"):
        compare(document(row()), document(row()), max_regression=-0.1)
