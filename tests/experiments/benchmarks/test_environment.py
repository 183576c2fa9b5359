"""Tests the report of the machine of a measurement."""

from experiments.benchmarks import environment


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
    (table,) = environment.tables(found)
    assert ["name", "NVIDIA H200"] in table.rows
    assert ["host memory", f"{found['host_memory_bytes'] / 1e9:.1f} GB"] in table.rows
