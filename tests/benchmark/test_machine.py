from __future__ import annotations

from pathlib import Path

from rtseg.benchmark import machine
from rtseg.benchmark.machine import cpu_info, describe_machine

CPUINFO = """processor : 0
cpu family : 6
model : 143
model name : Some CPU @ 2.00GHz
flags : fpu avx2 amx_bf16
"""


def test_the_processor_is_named_as_linux_has_it(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO, encoding="utf-8")
    name, flags = cpu_info(file)
    assert name == "Some CPU @ 2.00GHz, cpu family 6, model 143"
    assert flags == {"fpu", "avx2", "amx_bf16"}
    assert cpu_info(tmp_path / "none")[1] == set()


def test_clocks_are_told_or_said_to_be_unknown(tmp_path: Path) -> None:
    assert machine._processor_clock(tmp_path).startswith("not readable")
    values = {
        "scaling_governor": "powersave\n",
        "cpuinfo_min_freq": "800000\n",
        "cpuinfo_max_freq": "3500000\n",
    }
    for name, value in values.items():
        (tmp_path / name).write_text(value, encoding="utf-8")
    assert machine._processor_clock(tmp_path) == "governor powersave, 800 to 3500 MHz"


def test_this_machine_has_every_fact() -> None:
    facts = describe_machine("cpu")
    assert list(facts) == [
        "device", "driver", "power", "processor", "cores", "features", "load", "platform",
    ]  # fmt: skip
    assert facts["device"] == facts["processor"] != ""
    assert facts["cores"] >= 1
    assert set(facts["features"]) <= set(machine.FEATURES)
