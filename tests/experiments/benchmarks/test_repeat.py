"""Tests the comparison of two runs of the same training, and that it finds a difference."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import harness, repeat


def test_two_runs_of_a_narrow_network(monkeypatch, in_this_process):
    monkeypatch.setattr(repeat, "STEPS", 2)
    numbers = repeat.run(2, 1 / 32, "float32")  # as in test_train.py, so that it compiles once
    assert numbers["equal"]
    assert numbers["first_step_that_differs"] is None
    assert numbers["losses"][0][0] != numbers["losses"][0][1]
    assert len(bytes.fromhex(numbers["hashes"][1])) == 32
    assert in_this_process == 2 * [{"JAX_ENABLE_COMPILATION_CACHE": "false"}]
    assert repeat.tables(numbers)[0].rows[0][-1] == "equal bit for bit"


def test_a_difference_is_found(monkeypatch):
    runs = [{"losses": [3.0, float("nan"), last], "hash": name} for last, name in ((1.0, "a"), (1.5, "b"))]
    monkeypatch.setattr(harness, "start_process", lambda *_, **__: runs.pop(0))
    monkeypatch.setattr(harness, "result_of", lambda run: run)
    numbers = repeat.run(None, 1.0, None)
    assert not numbers["equal"]
    assert numbers["first_step_that_differs"] == 3
    assert repeat.verdict(numbers) == "NOT equal: losses differ from step 3 on"


def test_every_bit_of_every_array_counts():
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.ones(4, jnp.bfloat16), "c": jnp.float32(2)}
    changed = {**tree, "a": tree["a"].at[1, 2].set(-0.0)}
    assert repeat.hash_of(tree) == repeat.hash_of({key: np.array(leaf) for key, leaf in tree.items()})
    assert repeat.hash_of(tree) != repeat.hash_of(changed)
