"""What pyproject.toml cannot say: the folder experiments is the package deconvnet_jax.experiments in the wheel."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["deconvnet_jax*"]),
        *(f"deconvnet_jax.{name}" for name in find_packages(include=["experiments*"])),
    ],
    package_dir={"deconvnet_jax.experiments": "experiments"},
)
