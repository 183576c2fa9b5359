"""Two runs of the same training: what is compared, and that a difference shows."""

import json

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import environment, repeat


class Finished:
    """A process that has printed a run."""

    returncode = 0

    def __init__(self, losses, digest):
        self.output = "something before\n" + json.dumps({"losses": losses, "hash": digest}) + "\n"

    def communicate(self):
        return self.output, None


def test_a_run_of_a_narrow_network(monkeypatch, capsys):
    monkeypatch.setattr(repeat, "STEPS", 2)
    repeat.print_run(1, 1 / 64, "float32")
    found = json.loads(capsys.readouterr().out)
    assert len(found["losses"]) == 2
    assert found["losses"][0] != found["losses"][1]
    assert len(bytes.fromhex(found["hash"])) == 32


def test_a_difference_shows(monkeypatch, capsys):
    runs = [Finished([3.0, float("nan"), 1.0], "a"), Finished([3.0, float("nan"), 1.5], "b")]
    monkeypatch.setattr(repeat.subprocess, "Popen", lambda *_, **__: runs.pop(0))
    numbers = repeat.run(None, 1.0, None)
    assert not numbers["equal"]
    assert numbers["first_step_that_differs"] == 3
    assert "NOT equal" in capsys.readouterr().err


def test_every_bit_of_every_array_counts():
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.ones(4, jnp.bfloat16), "c": jnp.float32(2)}
    changed = {**tree, "a": tree["a"].at[1, 2].set(-0.0)}
    assert repeat.hash_of(tree) == repeat.hash_of({key: np.array(leaf) for key, leaf in tree.items()})
    assert repeat.hash_of(tree) != repeat.hash_of(changed)


def test_environment(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.1, 143771 MiB, 700.00 W, 1980 MHz, 3201 MHz, Disabled'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = environment.run()
    assert found["nvidia_smi"]["name"] == "NVIDIA H200"
    assert found["nvidia_smi"]["mig.mode.current"] == "Disabled"
    assert found["versions"]["jax"]
    assert found["platform"] == "cpu"
    assert found["cores"] >= 1
