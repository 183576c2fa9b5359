"""Several processes: found by flags or by the environment, and training as one."""

import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from training_programs import finish, metric_lines, wait_for_step

from deconvnet_jax.errors import InputError
from deconvnet_jax.weights import load_checkpoint
from experiments.common import hosts

SETTINGS = {
    "batch_size": 8,
    "num_steps": 3,
    "log_every": 1,
    "eval_every": 2,
    "bn_group": 4,
    "data.resize_size": 36,
    "data.crop_size": 32,
    "model.width": 1 / 16,
    "model.fc_features": 4,
    "model.fc_window": 1,
    "model.decoder_init": "smooth",
    "optimizer.learning_rate": 0.001,
    "ema_decay": 0.5,
    "calibrate.batches": 2,
    "calibrate.batch_size": 8,
}


@pytest.fixture(scope="module")
def start(scenes, start_training):
    def start(folder, *flags, devices, data_dir="tfds", **changes):
        data = {"data.voc_root": scenes, "data.data_dir": scenes.parent / data_dir}
        return start_training(folder, {**SETTINGS, **data, **changes}, *flags, devices=devices)

    return start


def start_two(start, folder, *more_flags, **changes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        flags = (f"--coordinator=localhost:{free.getsockname()[1]}", "--num_processes=2", *more_flags)
    return [start(folder, *flags, f"--process_id={i}", devices=2, data_dir="two", **changes) for i in range(2)]


def assert_close(found, expected, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


@pytest.mark.end_to_end
def test_two_processes_of_two_devices_train_as_one_of_four(start, tmp_path):
    """Evaluation, calibration and groups of statistics that span devices included; one of them writes."""
    first, second = finish(*start_two(start, tmp_path / "two"))
    finish(start(tmp_path / "one", devices=4))
    assert "4 cpu devices" in first
    assert "step" not in second
    for folder in ("", "calibrated"):
        _, found, _ = load_checkpoint(tmp_path / "two" / folder)
        _, expected, _ = load_checkpoint(tmp_path / "one" / folder)
        assert_close(found["params"], expected["params"], 1e-5)
        assert_close(found["batch_stats"], expected["batch_stats"], 1e-3)
    two, one = metric_lines(tmp_path / "two"), metric_lines(tmp_path / "one")
    assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 2, 3, 3]
    for ours, theirs in zip(two, one, strict=True):
        for key in {*ours} - {"train/images_per_second"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-3), key
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1


@pytest.mark.end_to_end
def test_sigterm_to_one_of_two_processes_and_one_alone_goes_on(start, tmp_path):
    long = {"num_steps": 100_000, "eval_every": 0, "checkpoint_every": 0, "calibrate.batches": 0}
    both = start_two(start, tmp_path / "two", "--stopped_status=75", **long)
    wait_for_step(both, tmp_path / "two", 5)
    both[1].send_signal(signal.SIGTERM)
    said = finish(*both, status=75)
    (saved,) = [int(path.name) for path in (tmp_path / "two/checkpoints").iterdir() if path.name.isdigit()]
    assert f"stopped as asked: step {saved} is saved" in said[0]
    assert "stopped as asked" not in said[1]
    changes = {**long, "num_steps": saved + 2}
    (errors,) = finish(start(tmp_path / "two", devices=4, **changes))
    assert f"resumed at step {saved} of {saved + 2}" in errors
    assert [line["step"] for line in metric_lines(tmp_path / "two")] == list(range(1, saved + 3))


def flag_values(*arguments):
    values = flags.FlagValues()
    flags.DEFINE_enum("distributed", "auto", ["auto", "on", "off"], "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    values(["program", *arguments])
    return values


def test_a_machine_that_is_no_pod_after_all_runs_alone(monkeypatch):
    """With libtpu installed JAX is asked; nothing found is no error there."""
    asked = []

    def nothing_found(**arguments):
        asked.append(arguments)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    hosts.initialize(flag_values(), {})
    assert [set(arguments) for arguments in asked] == [{"initialization_timeout"}]


CPU = {"JAX_PLATFORMS": "cpu"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
ALL = {"coordinator_address": "a:1", "num_processes": 4, "process_id": 2, "cluster_detection_method": "deactivate"}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ((), {}, None),
        (("--coordinator=a:1", "--num_processes=4", "--process_id=2"), {}, ALL),
        (("--process_id=2",), {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4"}, ALL),
        (("--distributed=off",), {"SLURM_STEP_NUM_TASKS": "8"}, None),
        ((), {"SLURM_STEP_NUM_TASKS": "8"}, {}),
        ((), {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "1"}, {}),
        ((), {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, {"local_device_ids": []}),
        ((), {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "JAX_LOCAL_DEVICE_IDS": "0,1"}, {}),
        ((), {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, {"local_device_ids": []}),
        ((), {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ((), {"SLURM_STEP_NUM_TASKS": "", "SLURM_JOB_ID": "7", "SLURM_STEP_NUM_NODES": ""}, None),
        ((), {"OMPI_COMM_WORLD_SIZE": " ", "OMPI_COMM_WORLD_LOCAL_SIZE": ""}, None),
        ((), {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": ""}, None),
        ((), {"JAX_COORDINATOR_ADDRESS": "", "JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""}, None),
        ((), {"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ((), KUBERNETES, {}),
        ((), {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ((), {"TPU_WORKER_HOSTNAMES": "host0,host1"}, {}),
        (("--coordinator=a:1",), {"OMPI_COMM_WORLD_SIZE": "2"}, {"coordinator_address": "a:1"}),
        (("--distributed=on",), {}, {}),
    ],
)
def test_who_tells_how_many_processes_there_are(arguments, environment, expected):
    assert hosts.settings(flag_values(*arguments), {**CPU, **environment}) == expected


@pytest.mark.parametrize("error", [KeyError("SLURM_PROCID"), TypeError("int() argument"), IndexError("list index")])
def test_variables_of_which_some_are_missing(monkeypatch, error):
    """What JAX raises where a cluster's variables are partly set."""

    def partly_set(**_):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", partly_set)
    with pytest.raises(InputError, match=type(error).__name__):
        hosts.initialize(flag_values(), {**CPU, "SLURM_STEP_NUM_TASKS": "2"})


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (
            ("--num_processes=2",),
            {},
            r"belong together outside of a cluster; give the others, too \(only num_processes",
        ),
        (("--coordinator=a:1", "--num_processes=2", "--process_id=2"), {}, "--process_id=2 of --num_processes=2"),
        (("--coordinator=a", "--num_processes=2", "--process_id=1"), {}, "--coordinator=a: expected HOST:PORT"),
        ((), {"JAX_NUM_PROCESSES": "many"}, "JAX_NUM_PROCESSES=many: expected a number"),
        (
            (),
            {"SLURM_STEP_NUM_TASKS": "2(x3)"},
            r"TASKS=2\(x3\): expected a number; .*--distributed=off",
        ),
        (("--distributed=on",), {}, "the other processes are unknown"),
        ((), {"OMPI_COMM_WORLD_SIZE": "2"}, "the other processes are unknown"),
    ],
)
def test_what_does_not_fit_together(monkeypatch, arguments, environment, message):
    def nothing_found(**_):
        raise ValueError("coordinator_address should be defined.")  # as JAX without a cluster

    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    with pytest.raises(InputError, match=message):
        hosts.initialize(flag_values(*arguments), {**CPU, **environment})


@pytest.mark.end_to_end
def test_one_process_on_each_of_two_slurm_hosts_sees_all_devices():
    """JAX itself, asked in two processes as SLURM would start them; it had taken the first GPU alone."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    program = (
        "import jax; from absl import flags; from jax._src import xla_bridge; from experiments.common import hosts;"
        "hosts.define_flags(); flags.FLAGS(['program']); hosts.initialize(flags.FLAGS);"
        "print(xla_bridge.CUDA_VISIBLE_DEVICES.value, jax.local_device_count(), jax.device_count())"
    )
    shared = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "JAX_COORDINATOR_PORT": port}
    shared |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0", "JAX_PLATFORMS": "cpu"}
    shared |= {"SLURM_NTASKS": "2", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **shared, "SLURM_PROCID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    for output, errors in results:
        assert output.split() == ["all", "2", "4"], errors
