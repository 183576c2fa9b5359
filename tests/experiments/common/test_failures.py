"""Failures of the machine: one line, whatever thread they happen in."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments.common import failures

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[3]
START = "import sys, threading; from experiments.common import failures; failures.report_in_one_line();"
IN_THREADS = """
def fail():
    raise OSError(28, "No space left on device", "events.out")
def bug():
    raise KeyError("x")
def main():
    for target in TARGETS:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
sys.exit(failures.status_of(main))
"""
PRINTS = """
def main():
    for i in range(100_000):
        print(i, "caf\\udce9")
sys.exit(failures.status_of(main))
"""


def python(code, **options):
    command = [sys.executable, "-c", START + code]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def test_errors_of_threads_are_one_line_each_and_the_status_is_1():
    done = python(IN_THREADS.replace("TARGETS", "(fail, fail)"))
    assert done.returncode == 1
    assert done.stderr == ("error: [Errno 28] No space left on device: 'events.out'; make room, or write elsewhere\n")


def test_bugs_in_threads_show_where():
    done = python(IN_THREADS.replace("TARGETS", "(bug,)"))
    assert "Traceback" in done.stderr


def test_nobody_reads_what_is_printed():
    read, write = os.pipe()
    os.close(read)
    done = python(PRINTS, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (failures.NOBODY_READS, "")


def test_names_that_are_no_text_are_printed_as_escapes():
    done = python(
        PRINTS.replace("100_000", "1"), stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout) == (0, "0 caf\\udce9\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_stdout_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = python(PRINTS.replace("100_000", "1"), stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device; make room, or write elsewhere\n"


@pytest.mark.parametrize("platform", ["cuda", "gpu", "tpu", "nonsense", None])
def test_an_accelerator_that_is_not_there(monkeypatch, platform):
    def none():
        raise RuntimeError("Unable to initialize backend 'x':\nINTERNAL") if platform else AssertionError()

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(jax, "config", type("Config", (), {"jax_platforms": platform}))
    said = failures.machine_failure(AssertionError())
    assert "\n" not in said
    if platform is None:
        assert said == "JAX could not start the accelerator (AssertionError); JAX_PLATFORMS=cpu computes without one"
    else:
        assert said.startswith(f"JAX_PLATFORMS={platform}: JAX cannot compute there (Unable to initialize backend 'x'")
        assert f'pip install "jax[{"tpu" if platform == "tpu" else "cuda13"}]=={jax.__version__}"' in said


def test_other_errors_are_bugs():
    assert failures.machine_failure(RuntimeError("something else")) is None


def test_a_bucket_that_fails_is_one_line(capsys):
    class HttpError(Exception):
        __module__ = "gcsfs.retry"

    def fail():
        raise HttpError("Service Unavailable,\n503")

    assert failures.status_of(fail) == failures.FAILED
    said = "error: Google Cloud Storage failed (Service Unavailable, 503); run the same command again"
    assert capsys.readouterr().err.strip() == said
