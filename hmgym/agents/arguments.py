"""A command line from a dataclass: every field is an option, the string that stands under it the option's help."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar

ArgumentsT = TypeVar("ArgumentsT")


def parse_arguments(
    cls: type[ArgumentsT],
    argv: Sequence[str],
    description: str | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> ArgumentsT:
    """An instance of `cls` from a command line; a field of type bool is a flag, one of type ``T | None`` takes a T.

    Args:
        cls: a dataclass whose fields all have defaults.
        argv: the command line without the program's name.
        description: its first paragraph introduces the help.
        choices: values that a field may have, by its name.
    """
    assert dataclasses.is_dataclass(cls)
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    allowed = choices or {}
    kinds, texts = typing.get_type_hints(cls), _field_texts(cls)
    for field in dataclasses.fields(cls):
        option = "--" + field.name.replace("_", "-")
        kind = kinds[field.name]
        if isinstance(kind, UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        if kind is bool:
            parser.add_argument(option, action="store_true", help=texts[field.name])
            continue
        settings: dict[str, Any] = {"choices": sorted(allowed[field.name])} if field.name in allowed else {}
        text = f"{texts[field.name]} (default: {field.default!r})"
        parser.add_argument(option, type=kind, default=field.default, help=text, **settings)
    return cls(**vars(parser.parse_args(argv)))


def _field_texts(cls: type) -> dict[str, str]:
    """The string that stands under each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: str(ast.literal_eval(after.value))
        for node, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr)
    }
