"""Reports the machine of a measurement: device, driver, processor and versions of packages.

python -m experiments.benchmark environment [--json=FILE]
"""

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import jax

from ..common import checks
from . import harness
from .harness import Numbers, Table

PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu", "flax", "optax", "numpy", "grain"),
    *("nvidia-cudnn-cu13", "nvidia-cublas", "torch", "triton", "opencv-contrib-python-headless", "pydensecrf2"),
)
NVIDIA_SMI = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.memory,mig.mode.current"


def run() -> Numbers:
    """Returns the machine, the system, this repository's commit and the package versions as one JSON object."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "device_memory_bytes": checks.device_memory(),
        "nvidia_smi": nvidia_smi(),
        "processor": processor(),
        "cores": harness.cores(),
        "host_memory_bytes": checks.host_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "versions": versions(),
    }


def tables(numbers: Numbers) -> list[Table]:
    """Returns a table with one row per entry of the numbers of `run`."""
    rows = []
    for name, value in numbers.items():
        entries = value.items() if isinstance(value, dict) else [(name, value)]
        for key, entry in entries:
            in_bytes = key.endswith("_bytes")
            name = key.removesuffix("_bytes").replace("_", " ")
            rows.append([name, harness.gigabytes(entry) if in_bytes else str(entry)])
    return [Table("", ("environment", ""), rows)]


def nvidia_smi() -> dict[str, str]:
    """Returns nvidia-smi's values for the first GPU, with the keys in NVIDIA_SMI; empty without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return {}
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_SMI}", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    values = lines[0].split(", ") if lines else []
    return dict(zip(NVIDIA_SMI.split(","), values, strict=False))


def processor() -> str:
    """Returns the processor's name from Linux; elsewhere what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str | None:
    """Returns the commit of this repository, with a + if files differ from it; None outside a git repository."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of those PACKAGES that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
