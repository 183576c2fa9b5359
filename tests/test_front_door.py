"""The names of the package itself, which are imported when they are used."""

import ast
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


def test_every_name_is_the_rooms_own():
    assert sorted(name for names in deconvnet_jax._ROOMS.values() for name in names) == deconvnet_jax.__all__
    for room, names in deconvnet_jax._ROOMS.items():
        scope = {}
        exec(f"import deconvnet_jax.{room} as room; from deconvnet_jax import {', '.join(names)}", scope)
        assert all(scope[name] is getattr(scope["room"], name) for name in names)


def test_checkers_and_editors_see_the_same_names():
    imports = [node for node in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(node, ast.ImportFrom)]
    rooms = {
        node.module.split(".")[1]: tuple(name.name for name in node.names) for node in imports if "." in node.module
    }
    assert rooms == deconvnet_jax._ROOMS


def test_other_names():
    from deconvnet_jax import buckets, ops

    assert (ops.__name__, buckets.__name__) == ("deconvnet_jax.ops", "deconvnet_jax.buckets")
    with pytest.raises(AttributeError, match="module 'deconvnet_jax' has no attribute 'Segmentor'"):
        _ = deconvnet_jax.Segmentor
