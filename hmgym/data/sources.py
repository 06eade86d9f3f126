"""A book by a description that JSON can hold, so that commands can take it and checkpoints can name it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from hmgym.checks import shown
from hmgym.data.binance import read_binance
from hmgym.data.books import BookHistory
from hmgym.data.lobster import read_lobster

BookSource = BookHistory | Mapping[str, Any]

_OPTIONS = {"lobster": {"levels"}, "binance": {"symbol", "market", "snapshot", "levels", "tick"}}


def read_book(source: BookSource) -> BookHistory:
    """The book that is described, read once in a process.

    Args:
        source: ``{"lobster": [messages, book]}``, and perhaps `levels`; or ``{"binance": stream or folder, "symbol":
            "BTCUSDT"}``, and perhaps `market`, `snapshot`, `levels`, `tick`: arguments of :func:`read_lobster` and
            :func:`read_binance`. A `BookHistory` is returned as it is.

    Raises:
        ValueError: the description is none of these, or the files cannot be read.
    """
    if isinstance(source, BookHistory):
        return source
    kinds = [kind for kind in _OPTIONS if isinstance(source, Mapping) and kind in source]
    if len(kinds) != 1:
        raise ValueError(
            '`book` must be a BookHistory, {"lobster": [messages, book]} or {"binance": folder, "symbol": ...}, '
            f"got {shown(source)}"
        )
    kind = kinds[0]
    assert isinstance(source, Mapping)
    options = {name: value for name, value in source.items() if name != kind}
    unknown = sorted(set(options) - _OPTIONS[kind], key=str)
    if unknown:
        raise ValueError(f'`book` with "{kind}" may also have {sorted(_OPTIONS[kind])}, got {unknown}')
    if kind == "binance":
        if not isinstance(source[kind], (str, os.PathLike)) or "symbol" not in options:
            raise ValueError(f'`book` must be {{"binance": folder or file, "symbol": ...}}, got {shown(dict(source))}')
        return _read(kind, (_path(source[kind]),), _plain(options))
    files = source[kind]
    if not isinstance(files, (list, tuple)) or len(files) != 2:
        raise ValueError(f'`book` must be {{"lobster": [messages, book]}}, got {shown(dict(source))}')
    return _read(kind, tuple(_path(path) for path in files), _plain(options))


@functools.lru_cache(maxsize=8)
def _read(kind: str, paths: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> BookHistory:
    if kind == "lobster":
        return read_lobster(*paths, **dict(options))
    return read_binance(*paths, **dict(options))


def _path(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`book` must name files, got {shown(path)}")
    return str(os.fspath(path))


def _plain(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Something that a cache can look up."""
    kept = {name: _path(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}
    for name, value in kept.items():
        if value is not None and not isinstance(value, (str, int, float)):
            raise ValueError(f"`{name}` of `book` must be text or a number, got {shown(value)}")
    return tuple(sorted(kept.items()))
