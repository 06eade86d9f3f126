"""Options that name a recorded book, for the environments that run on one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hmgym.data import read_book
from hmgym.envs import make_markets


@dataclass(frozen=True, kw_only=True)
class BookOptions:
    """A recorded book."""

    lobster: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="MESSAGES BOOK")] = None
    """recorded book of LOBSTER: its message file and its order-book file"""
    binance: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """recorded book of Binance: a stream, or a folder with the stream and its snapshot; goes with `--symbol`"""
    symbol: str | None = None
    """of the recording of Binance, such as BTCUSDT"""
    binance_market: Literal["spot", "usdm"] | None = None
    """of the recording of Binance; default spot"""


def book_arguments(options: BookOptions, env_id: str) -> dict[str, Any]:
    """The argument `book` of an environment that options ask for, or nothing; the recording was read.

    Raises:
        ValueError: options do not go together, the environment takes no book, or the files cannot be read.
    """
    if options.lobster is not None and options.binance is not None:
        raise ValueError("`lobster` and `binance` must not both be given")
    if options.binance is None and (options.symbol is not None or options.binance_market is not None):
        raise ValueError("`symbol` and `binance_market` go with `binance`, which was not given")
    if options.lobster is None and options.binance is None:
        return {}
    markets = make_markets(env_id, 1)
    markets.close()
    if "book" not in inspect.signature(type(markets)).parameters:
        raise ValueError(f"`env` must run on a recorded book, such as hmgym/LOBMarketMaking-v0, got {env_id!r}")
    book: dict[str, Any]
    if options.lobster is not None:
        book = {"lobster": [str(path) for path in options.lobster]}
    elif options.symbol is None:
        raise ValueError("`symbol` must be given with `binance`, such as BTCUSDT")
    else:
        book = {"binance": str(options.binance), "symbol": options.symbol, "market": options.binance_market or "spot"}
    read_book(book)
    return {"book": book}
