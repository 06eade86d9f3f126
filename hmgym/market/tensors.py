"""States as trees: dataclasses, tuples and dicts whose leaves are tensors or arrays, each with a dotted name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Tree = TypeVar("Tree")
_LEAVES = (Tensor, np.ndarray)


def map_tensors(function: Callable[..., Tensor], first: Tree, *others: Tree) -> Tree:
    """The tree of `function` of corresponding leaves; all trees have the structure of the first."""
    if isinstance(first, _LEAVES):
        return function(first, *others)  # type: ignore[return-value]
    parts = [[part for _, part in _parts(tree)] for tree in (first, *others)]
    return _rebuilt(first, [map_tensors(function, *group) for group in zip(*parts, strict=True)])


def named_tensors(tree: Any) -> dict[str, Tensor]:
    """Every leaf by its name, as in ``"scenario.memories.0.trend"``."""
    return {name: leaf for name, leaf, _ in _leaves(tree)}


def with_tensors(tree: Tree, named: Mapping[str, Tensor]) -> Tree:
    """A copy in which the leaves of these names are others.

    Raises:
        ValueError: the tree has no leaf of such a name.
    """
    unknown = set(named) - set(named_tensors(tree))
    if unknown:
        raise ValueError(f"`named` must hold tensors of the state, got {sorted(unknown)}")
    replaced: Tree = _replaced(tree, named, "")
    return replaced


def exogenous_names(tree: Any) -> tuple[str, ...]:
    """Names of the leaves in fields that their class lists in `exogenous_fields`."""
    return tuple(name for name, _, exogenous in _leaves(tree) if exogenous)


def _parts(tree: Any) -> list[tuple[str, Any]]:
    if tree is None:
        return []
    if dataclasses.is_dataclass(tree):
        return [(item.name, getattr(tree, item.name)) for item in dataclasses.fields(tree)]
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, tuple):
        return [(str(index), part) for index, part in enumerate(tree)]
    raise ValueError(f"a state must consist of tensors, dataclasses, tuples and dicts, got {type(tree).__name__}")


def _rebuilt(like: Tree, parts: list[Any]) -> Tree:
    if isinstance(like, dict):
        return type(like)(zip(like, parts, strict=True))
    if like is None:
        return like
    if isinstance(like, tuple):
        return type(like)._make(parts) if hasattr(like, "_make") else type(like)(parts)
    names = (item.name for item in dataclasses.fields(like))  # type: ignore[arg-type]
    return type(like)(**dict(zip(names, parts, strict=True)))


def _leaves(tree: Any, prefix: str = "", exogenous: bool = False) -> Iterator[tuple[str, Any, bool]]:
    marked = getattr(tree, "exogenous_fields", ())
    for name, part in _parts(tree):
        if isinstance(part, _LEAVES):
            yield prefix + name, part, exogenous or name in marked
        else:
            yield from _leaves(part, f"{prefix}{name}.", exogenous or name in marked)


def _replaced(tree: Any, named: Mapping[str, Tensor], prefix: str) -> Any:
    parts = []
    for name, part in _parts(tree):
        if isinstance(part, _LEAVES):
            parts.append(named.get(prefix + name, part))
        else:
            parts.append(_replaced(part, named, f"{prefix}{name}."))
    return _rebuilt(tree, parts)
