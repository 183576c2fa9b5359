"""Packs the folder experiments as the package deconvnet_jax.experiments, which pyproject.toml cannot express."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["deconvnet_jax*"]),
        *(
            f"deconvnet_jax.{name}"
            for name in find_namespace_packages(include=["experiments*"], exclude=["*__pycache__*"])
        ),
    ],
    package_dir={"deconvnet_jax.experiments": "experiments"},
)
