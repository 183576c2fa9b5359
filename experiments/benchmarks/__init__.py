"""Benchmarks that experiments.benchmark runs: this project's speed and memory, compared with other libraries."""
