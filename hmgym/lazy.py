"""Public names that are imported when they are first asked for: a package opens without torch until something runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, homes: Mapping[str, Sequence[str]], rooms: Sequence[str] = ()) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose ``__init__`` imports nothing.

    Args:
        package: its ``__name__``.
        homes: public names by the module that they are in.
        rooms: submodules that are found without an import of their own.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name in rooms:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find


def imported(place: str) -> Any:
    """What stands at a place ``"module:name"``, as registries give it."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
