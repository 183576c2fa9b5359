"""What a measurement was made on: device, driver, processor and versions of packages.

python -m experiments.benchmark environment [--json=FILE]
"""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from experiments.common import checks

PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
    "libtpu",
    "flax",
    "optax",
    "numpy",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "torch",
    "triton",
    "opencv-contrib-python-headless",
    "pydensecrf2",
    "grain",
)
NVIDIA_SMI = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.memory,mig.mode.current"


def run() -> dict[str, Any]:
    """Prints a table; returns its entries."""
    device = jax.devices()[0]
    numbers = {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "device_memory_bytes": checks.device_memory(),
        "nvidia_smi": nvidia_smi(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "host_memory_bytes": checks.host_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "versions": versions(),
    }
    table = Table("environment", "")
    for name, value in numbers.items():
        entries = value.items() if isinstance(value, dict) else [(name, value)]
        for key, entry in entries:
            table.add_row(key, str(entry))
    Console(stderr=True, width=110).print(table)
    return numbers


def nvidia_smi() -> dict[str, str]:
    """What NVIDIA's tool says about the first card; nothing without one."""
    if not shutil.which("nvidia-smi"):
        return {}
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_SMI}", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    values = lines[0].split(", ") if lines else []
    return dict(zip(NVIDIA_SMI.split(","), values, strict=False))


def processor() -> str:
    """The processor's name, where Linux tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str | None:
    """The commit of this repository, with a + if files differ from it; None where it is no repository."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of the packages that matter here and are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
