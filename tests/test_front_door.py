"""Tests packages whose names are imported on first use."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import deconvnet_jax

pytestmark = pytest.mark.end_to_end

SOURCE = Path(inspect.getsourcefile(deconvnet_jax))


def test_the_package_alone_imports_no_jax():
    script = (
        "import sys, deconvnet_jax; print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'jax', 'flax', 'numpy', 'orbax', 'optax'}), 'Segmenter' in dir(deconvnet_jax))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=SOURCE.parents[1], capture_output=True, text=True)
    assert done.stdout == "[] True\n", done.stderr


def lazy_packages():
    """Returns the packages that import their names on first use."""
    files = [SOURCE, *SOURCE.parent.glob("*/__init__.py")]
    return [".".join(path.relative_to(SOURCE.parents[1]).parent.parts) for path in files if "_LAZY" in path.read_text()]


@pytest.mark.parametrize("name", lazy_packages())
def test_the_lists_of_a_lazy_package_agree(name):
    """The names for type checkers, the names that are imported on first use, and `__all__` are the same."""
    package = importlib.import_module(name)
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    checked = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert checked == {(f"{name}.{module}", known) for module, names in package._LAZY.items() for known in names}
    for module, known in checked:
        assert getattr(package, known) is getattr(importlib.import_module(module), known)
    assert {known for _, known in checked} <= set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, known) for known in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Segmentor'"):
        _ = package.Segmentor


def test_modules_are_found():
    from deconvnet_jax import buckets, ops

    assert (ops.__name__, buckets.__name__) == ("deconvnet_jax.ops", "deconvnet_jax.buckets")
