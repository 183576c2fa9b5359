"""Lets a package import its names on first use, so that importing the package alone costs nothing."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Returns the functions `__getattr__` and `__dir__` for a package.

    Args:
      package: name of the package, for example "deconvnet_jax.ops".
      modules: maps each module, by its name within the package, to the names that the package takes from it.

    Returns:
      `__getattr__`, which imports the module of a name and raises AttributeError for a name that is not in `modules`;
      and `__dir__`, which lists the names already in the package and those in `modules`, sorted.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *places})
