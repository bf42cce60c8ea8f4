"""What a speed depends on beside the network: device, driver, clock, load, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

CPU_FOLDER = Path("/sys/devices/system/cpu/cpu0/cpufreq")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
UNKNOWN = "not readable"
_QUESTIONS = {
    "driver": "driver_version",
    "power_limit": "power.limit",
    "clock": "clocks.sm",
    "highest_clock": "clocks.max.sm",
    "persistence": "persistence_mode",
}


def describe_machine(device: str) -> dict[str, Any]:
    """Return device, driver, power and clock, and the load before anything was measured.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.

    Returns:
        `device`: its name. `driver`, `power`: text, or "not readable". `processor`, `cores`,
        `features`: of the CPU. `load`: processes that were running or waiting in the last minute,
        None where the system does not count them. `platform`: operating system.
    """
    model, flags = cpu_info()
    gpu = device.startswith("cuda")
    driver, power = _graphics(device) if gpu else ("none", _processor_clock())
    return {
        "device": torch.cuda.get_device_name(torch.device(device)) if gpu else model,
        "driver": driver,
        "power": power,
        "processor": model,
        "cores": os.cpu_count(),
        "features": [name for name in FEATURES if name in flags],
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
    }


def cpu_info(path: Path = Path("/proc/cpuinfo")) -> tuple[str, set[str]]:
    """Return name (with family and model number) and flags of the processor, as Linux has them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    facts = {name.strip(): value.strip() for name, value in pairs}
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    name = facts.get("model name") or platform.machine()
    return ", ".join([name, *numbers]), set(facts.get("flags", "").split())


def _processor_clock(folder: Path = CPU_FOLDER) -> str:
    """Say who governs the clock, and between which frequencies."""
    found = {}
    for key in ("scaling_governor", "cpuinfo_min_freq", "cpuinfo_max_freq"):
        try:
            found[key] = (folder / key).read_text(encoding="utf-8").strip()
        except OSError:
            return f"{UNKNOWN} (no cpufreq, as in most virtual machines)"
    low, high = (int(found[f"cpuinfo_{end}_freq"]) // 1000 for end in ("min", "max"))
    return f"governor {found['scaling_governor']}, {low} to {high} MHz"


def _graphics(device: str) -> tuple[str, str]:
    """Return driver, and power limit and clocks, as nvidia-smi tells them."""
    number = torch.device(device).index or 0
    command = [
        "nvidia-smi", f"--id={number}", f"--query-gpu={','.join(_QUESTIONS.values())}",
        "--format=csv,noheader",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN, UNKNOWN
    answers = [value.strip() for value in done.stdout.strip().split(",")]
    facts = dict(zip(_QUESTIONS, answers, strict=False))
    driver = facts.pop("driver", UNKNOWN)
    return driver, ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
