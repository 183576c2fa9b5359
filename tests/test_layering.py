"""Tests that imports point downwards only, and that each folder imports only what it needs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The folders of this project that each folder may import, from the bottom up. All may import errors.py.
MAY_IMPORT = {
    "ops": set(),
    "models": {"ops"},
    "weights": {"ops", "models"},
    "proposals": {"ops", "models"},
    "data": {"ops", "models", "proposals"},
    "training": {"ops", "models", "weights", "data"},
    "evaluation": set(),
    "visualization": set(),
    "inference": {"ops", "models", "weights", "proposals", "data", "visualization"},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of the module"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def project_folders(path):
    """Yields the folders of deconvnet_jax that a file imports, and "experiments" if it imports programs."""
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "experiments":
            yield "experiments"
        elif parts[0] == "deconvnet_jax" and len(parts) > 1 and (ROOT / "deconvnet_jax" / parts[1]).is_dir():
            yield parts[1]


def test_every_folder_has_its_place():
    folders = {path.name for path in (ROOT / "deconvnet_jax").iterdir() if (path / "__init__.py").exists()}
    assert folders == set(MAY_IMPORT)
    order = list(MAY_IMPORT)
    for folder, below in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(folder) for other in below)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_downwards(folder):
    for path in (ROOT / "deconvnet_jax" / folder).rglob("*.py"):
        assert set(project_folders(path)) <= MAY_IMPORT[folder] | {folder}, path


def test_the_package_itself_imports_no_folder():
    for path in (ROOT / "deconvnet_jax").glob("[!_]*.py"):  # __init__.py may import folders, on first use.
        assert not set(project_folders(path)), path


PROGRAMS = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
# The folders that each folder of experiments may import; programs may import all of them.
EXPERIMENTS = {
    "configs": set(),
    "common": {"configs"},
    "compiled": {"common"},
    "benchmarks": {"configs", "common", "compiled"},
    "tasks": {"configs", "common", "compiled", "benchmarks"},
}


def experiments_imported(path):
    """Yields the folders and programs of experiments that a file in experiments imports."""
    folder = path.relative_to(ROOT).parts[:-1]  # ("experiments",) or ("experiments", "common")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("experiments") for name in node.names), f"{path}: write `from .`"
        elif isinstance(node, ast.ImportFrom):
            written = node.module.split(".") if node.module else []
            assert written[:1] != ["experiments"], f"{path}: write `from .`, in the wheel there is no such package"
            if node.level:
                base = (*folder[: len(folder) + 1 - node.level], *written)
                yield from [base[1]] if len(base) > 1 else [name.name for name in node.names]


def test_experiments_holds_programs():
    folders = {path.parent.name for path in (ROOT / "experiments").glob("*/__init__.py")}
    assert folders == set(EXPERIMENTS)
    for program in PROGRAMS:
        text = (ROOT / f"experiments/{program}.py").read_text()
        assert 'if __name__ == "__main__":\n    define_flags()\n    cli.run(main)\n' in text, program


def test_no_program_is_imported():
    for program in PROGRAMS:
        found = set(experiments_imported(ROOT / f"experiments/{program}.py"))
        assert found <= set(EXPERIMENTS), program
    for folder, below in EXPERIMENTS.items():
        for path in (ROOT / "experiments" / folder).rglob("*.py"):
            assert set(experiments_imported(path)) <= below | {folder}, path
