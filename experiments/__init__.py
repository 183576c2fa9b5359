"""Programs that a person runs, one file each: python -m experiments.NAME."""
