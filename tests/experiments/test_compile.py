"""The compile command: its compilation for accelerators where they can be compiled for, its report, its messages."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS
from deconvnet_jax.training import state
from experiments.compiled import report, topologies
from experiments.compiled.hardware import ACCELERATORS
from experiments.configs import default, voc_stage1
from experiments.tasks import compile as program

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {"h100:8": ("jax_cuda13_plugin", "compile-gpu"), "v5e:2x4": ("libtpu", "compile-tpu")}
EXTRAS["v5p:2x2x2"] = EXTRAS["v5e:2x4"]  # XLA refuses some options for it that it takes for v5e


def needs_extra(topology):
    module, extra = EXTRAS[topology]
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"compiling for {topology} needs pip install -e '.[{extra}]'")


def compiled(tmp_path, *arguments):
    """The report that the command writes, and what it prints."""
    path = tmp_path / "report.json"
    config = "--config=experiments/configs/voc_stage1.py"
    command = [sys.executable, "-m", "experiments.compile", config, f"--json={path}", *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


NARROW = ("--config.model.width=0.125", "--config.model.fc_features=64", "--config.model.dtype=bfloat16")


@pytest.mark.parametrize("topology", [pytest.param(name, marks=needs_extra(name)) for name in EXTRAS])
def test_narrow_network(tmp_path, topology):
    found, printed = compiled(tmp_path, f"--topology={topology}", "--config.batch_size=16", *NARROW)
    step = found["step"]
    assert (found["devices"], found["batch_per_device"]) == (8, 2)
    assert step["backward_products"] == 59  # two for each of 30 layers, but none for the gradient of the image
    gradients = step["memory"]["state_bytes"] / 2  # the other half is momentum
    padding = 1.1 if topology == "h100:8" else 3  # narrow layers fill few of a TPU's 128 lanes
    assert gradients < step["exchanged_bytes"] < padding * gradients
    assert step["memory"]["fits"]
    assert step["bound_seconds"] >= max(step["arithmetic_seconds"], step["memory_seconds"])
    assert found["proposal_batch"]["flops_per_window"] > step["flops_per_image"] / 3  # forward pass and resizing
    assert "Fits: 2 images per device" in printed


FULL = ("--config.batch_size=512", "--config.model.dtype=bfloat16", "--config.bn_group=0")


@pytest.mark.slow
@needs_extra("h100:8")
def test_full_network_on_gpus(tmp_path):
    """64 images on each of 8 H100s. Bounds are what was compiled on 28 November 2026 and a little more."""
    found, _ = compiled(tmp_path, "--topology=h100:8", *FULL)
    step = found["step"]
    assert step["flops_per_image"] == pytest.approx(196e9, rel=0.05)
    assert step["memory"]["total_bytes"] < 11e9  # 10.5 GB; 10.1 GB were measured on one H100
    assert step["bytes_per_image"] < 1.0e9  # 0.976e9
    assert step["early_share"] > 0.9  # 0.09 if the sums of fc6, fc7 and fc6-deconv come last (training/early_sums.py)
    assert step["exchanged_bytes"] == pytest.approx(4 * 251_805_653, rel=0.01)


@pytest.mark.slow
@needs_extra("v5e:2x4")
def test_full_network_on_tpus(tmp_path):
    """8 images on each of 8 chips."""
    arguments = ("--config.batch_size=64", "--config.model.dtype=bfloat16", "--config.bn_group=0")
    found, _ = compiled(tmp_path, "--topology=v5e:2x4", *arguments)
    step = found["step"]
    assert step["flops_per_image"] == pytest.approx(196e9, rel=0.05)
    assert step["memory"]["total_bytes"] < 7e9  # 6.4 GB, of which 2.2 GB are for sums that are on their way
    assert step["bytes_per_image"] < 1.7e9  # 1.62e9
    assert step["exchanged_bytes"] == pytest.approx(4 * 251_805_653, rel=0.01)


def narrow_config():
    config = default.get_config()
    config.model.update({"width": 1 / 32, "fc_features": 8, "fc_window": 1, "num_classes": 3})
    config.data.update({"crop_size": 32, "resize_size": 36})
    config.batch_size = 8
    return config


@pytest.fixture
def shallow(monkeypatch):
    """One layer per block: the step compiles in less than half the time."""
    for block in ENCODER_WIDTHS:
        monkeypatch.setitem(ENCODER_WIDTHS, block, ENCODER_WIDTHS[block][:1])
        monkeypatch.setitem(DECODER_WIDTHS, block, DECODER_WIDTHS[block][-1:])
    state._initialised.clear_cache()  # of networks with the same fields
    yield
    state._initialised.clear_cache()


@pytest.mark.usefixtures("shallow")
def test_compile_step_on_the_devices_of_this_machine():
    """With the shapes alone, the step compiles for any devices."""
    devices = jax.devices()
    made, seconds = program.compile_step(narrow_config(), "cpu", devices, 8)
    assert seconds > 0
    trained, batch = made.args_info[0]
    assert batch["image"].shape == (len(devices), 8 // len(devices), 32, 32, 3)
    found = report.of_step(made, narrow_config(), "h100:4", devices)  # as if they were those
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    assert found["memory"]["state_bytes"] == 4 * numbers
    assert found["exchanged_bytes"] > found["memory"]["state_bytes"] / 2
    assert found["bytes_per_image"] * 2 == found["num_bytes"] > 0


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_the_step_weighs_classes_where_the_config_does(monkeypatch, balance):
    """The weights are a constant of the program, one number for each of five classes."""
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered, **_: lowered)
    config = narrow_config()
    config.model.num_classes, config.class_balance = 5, balance
    lowered, _ = program.compile_step(config, "cpu", jax.devices(), 8)
    assert bool(re.search(r"dense<\[.*\]> : tensor<5xf32>", lowered.as_text())) == (balance > 0)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("abc:8", "--topology=abc:8: unknown accelerator 'abc'; expected for example v5e:4x4"),
        ("v4:2x2x1", "--topology=v4:2x2x1: unknown accelerator 'v4'; expected for example v5e:4x4"),
        ("h100", "--topology=h100: expected a number of GPUs after the colon, for example v5e:4x4"),
        ("h100:2x4", "--topology=h100:2x4: expected a number of GPUs after the colon"),
        ("v5e:8", "--topology=v5e:8: expected a grid of chips after the colon"),
        ("a100:12", "--topology=a100:12: expected 1 to 8 GPUs, or a multiple of 8 for several hosts"),
    ],
)
def test_unknown_topologies(topology, message):
    with pytest.raises(InputError) as error:
        program.run(voc_stage1.get_config(), topology)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("topology", "extra"), [("h100:8", "compile-gpu"), ("v5e:2x4", "compile-tpu")])
def test_what_to_install(monkeypatch, topology, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"needs XLA's compiler for .PUs: pip install -e '\.\[{extra}\]'"):
        topologies.describe(topology)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "ABORTED: Internal error when accessing libtpu multi-process lockfile. Run ...\nmore",
            "--topology=v5e:2x4: another process uses libtpu (/tmp/libtpu_lockfile); wait until it ends",
        ),
        ("INVALID_ARGUMENT: no\nmore", "--topology=v5e:2x4 cannot be compiled for: INVALID_ARGUMENT: no"),
    ],
)
def test_libtpu_refuses(monkeypatch, said, message):
    def refuse(topology):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(topologies, "_tpus", refuse)
    with pytest.raises(InputError) as error:
        topologies.describe("v5e:2x4")
    assert str(error.value) == message


@pytest.fixture
def eight_devices(monkeypatch):
    monkeypatch.setattr(topologies, "describe", lambda topology: [SimpleNamespace(device_kind="H100")] * 8)


@pytest.mark.usefixtures("eight_devices")
def test_a_batch_that_does_not_divide():
    config = voc_stage1.get_config()
    config.batch_size = 60
    with pytest.raises(InputError, match="batch_size=60 cannot be split evenly over 8 devices"):
        program.run(config, "h100:8")


@pytest.mark.usefixtures("eight_devices")
def test_micro_batches_leave_nothing_to_find():
    config = voc_stage1.get_config()
    config.micro_batch = 4
    config.bn_group = 4
    with pytest.raises(InputError, match=r"--find_batch: config.micro_batch=4 bounds the memory; leave it out"):
        program.run(config, "h100:8", find_batch=True)


def with_memory(monkeypatch, needed):
    """Compilations that need `needed(batch per device)` bytes; None: XLA refuses."""

    def compile_step(config, topology, devices, batch_size):
        num_bytes = needed(batch_size // 8)
        if num_bytes is None:
            raise program.DoesNotFitError("no")
        return num_bytes, 1.0

    monkeypatch.setattr(program, "compile_step", compile_step)
    monkeypatch.setattr(report, "memory", lambda compiled, accelerator, state: {"total_bytes": compiled})


@pytest.mark.usefixtures("eight_devices")
@pytest.mark.parametrize("refused", [None, 10**12])
def test_the_largest_batch_is_one_that_its_groups_divide(monkeypatch, refused):
    with_memory(monkeypatch, lambda images: 3e9 + 130e6 * images if images <= 460 else refused)
    assert ACCELERATORS["h100"].memory > 3e9 + 130e6 * 464  # the line through smaller batches says that it fits
    assert program.largest_batch(voc_stage1.get_config(), "h100:8", [None] * 8) == 456


@pytest.mark.usefixtures("eight_devices")
def test_no_batch_fits(monkeypatch):
    with_memory(monkeypatch, lambda images: None)
    with pytest.raises(InputError, match="--topology=h100:8: not even the smallest batch fits"):
        program.largest_batch(voc_stage1.get_config(), "h100:8", [None] * 8)


def test_a_step_that_does_not_fit():
    found = {"topology": "h100:8", "config": {"batch_size": 512}}
    found["step"] = {"memory": {"total_bytes": 80e9, "usable_bytes": 63.7e9}}
    assert report.does_not_fit(found) == (
        "config.batch_size=512 needs 80 GB on each device of h100:8, which has 63.7 GB for a program; lower it, or "
        "give --find_batch"
    )


def test_xla_refuses_a_step(monkeypatch):
    said = "RESOURCE_EXHAUSTED: E1000: Ran out of memory on HBM, the total memory required (20.5G) exceeds (15.75G)."
    with pytest.raises(program.DoesNotFitError) as error, program._compiling("step for v5e:2x4"):
        raise jax.errors.JaxRuntimeError(said)
    assert str(error.value) == "the step for v5e:2x4 does not fit: XLA needs 20.5G and a device has 15.75G"
