"""Docstrings can be used without opening the body; `ruff` checks their form (pydocstyle with the Google convention)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "deconvnet_jax").rglob("*.py")), *sorted((ROOT / "experiments").rglob("*.py"))]
PROPERTIES = {"property", "cached_property", "setter"}


def public_functions(node, owner=""):
    """Yields (qualified name, function) for public functions, and for public methods of public classes."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{owner}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            decorators = {getattr(d, "id", getattr(d, "attr", None)) for d in child.decorator_list}
            if not decorators & PROPERTIES:
                yield owner + child.name, child


def section(docstring, title):
    found = re.search(rf"^{title}:\n((?:[ \t]+\S.*\n|\n)*)", docstring + "\n", re.M)
    return found and found[1]


def raises(function, name):
    raised = (node.exc for node in ast.walk(function) if isinstance(node, ast.Raise))
    return any(getattr(getattr(exception, "func", exception), "id", None) == name for exception in raised)


def faults(function):
    """Yields what a docstring lacks: a verb, or a section that says what goes in, comes out or is raised."""
    docstring = ast.get_docstring(function)
    verb = docstring.split()[0].strip(".,:")
    if not verb.endswith("s"):
        yield f"the first word '{verb}' is no verb in the third person"
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
    kinds = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation]
    if len(names) >= 2 or any(re.search(r"\b(Array|ndarray)\b", kind) for kind in kinds):
        described = section(docstring, "Args") or ""
        missing = [name for name in names if not re.search(rf"(^|[ ,*]){name}\b[^:]*:", described, re.M)]
        if missing:
            yield f"the section Args does not describe {', '.join(missing)}"
        returned = ast.unparse(function.returns) if function.returns else "None"
        sections = section(docstring, "Returns") or section(docstring, "Yields")
        if returned not in ("None", "NoReturn") and not sections and verb not in ("Returns", "Yields"):
            yield "no section Returns"
    if raises(function, "InputError") and not section(docstring, "Raises") and verb not in ("Raises", "Checks"):
        yield "it raises InputError, but there is no section Raises"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_goes_in_and_out(path):
    functions = public_functions(ast.parse(path.read_text()))
    found = [
        f"{name}: {fault}" for name, function in functions if ast.get_docstring(function) for fault in faults(function)
    ]
    assert not found, "\n".join(found)


def test_faults_are_found():
    source = '''
def scale(x: Array, factor: float) -> Array:
    """The scaled array.

    Args:
      x: [N, H, W, C], float32.
    """
    raise InputError("never")
'''
    (function,) = ast.parse(source).body
    assert list(faults(function)) == [
        "the first word 'The' is no verb in the third person",
        "the section Args does not describe factor",
        "no section Returns",
        "it raises InputError, but there is no section Raises",
    ]
