"""What the subcommands share: options from a dataclass, refusals in one line, text to the terminal."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from hmgym.agents.probes import with_economy
from hmgym.checks import integer
from hmgym.envs import make_markets
from hmgym.market import SCENARIOS, MarketConfig
from hmgym.market.registry import registered

ArgumentsT = TypeVar("ArgumentsT")


def parse(cls: type[ArgumentsT], argv: Sequence[str], *, prog: str, description: str | None) -> ArgumentsT:
    """An instance of a dataclass from a command line: every field an option, the string under it the option's help.

    A nested dataclass adds its fields as options of their own group; a wrong option ends the program with status 2.
    """
    return tyro.cli(
        cls, args=list(argv), prog=prog, description=(description or "").split("\n\n")[0],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )  # fmt: skip


@contextlib.contextmanager
def refusals(prog: str) -> Iterator[None]:
    """Arguments that the block refuses end the program with status 2 and one line, without a traceback."""
    try:
        yield
    except (ValueError, ImportError) as error:
        sys.stderr.write(f"{prog}: error: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from error


def say(text: str = "") -> None:
    """One paragraph to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def check_at_least(arguments: object, **least: int) -> None:
    """Check integer arguments.

    Raises:
        ValueError: one is smaller than its least value.
    """
    for name, smallest in least.items():
        integer(name, getattr(arguments, name), smallest)


def named_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments given as ``NAME=VALUE``: numbers, tuples, None and True as Python writes them, other text as it is.

    Raises:
        ValueError: one has no ``=`` or no name.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"`parameters` must be NAME=VALUE, got {pair!r}")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def own_arguments(env_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of an environment from what :func:`named_values` gave.

    Raises:
        ValueError: there is no such environment, or it has no such argument.
    """
    if not parameters:
        return {}
    known = _arguments_of(env_id)
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ValueError(f"`parameters` of {env_id} must be some of {sorted(known)}, got {unknown}")
    return dict(parameters)


def _arguments_of(env_id: str) -> set[str]:
    markets = make_markets(env_id, 1)
    markets.close()
    return set(inspect.signature(type(markets)).parameters) - {"num_envs", "kwargs"}


def environment_arguments(env_id: str, given: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of an environment from options and from named parameters.

    A parameter that is one of the economy's goes into a `config`, on top of the sizes; another one goes to the
    environment as it is.

    Args:
        env_id: a registered id.
        given: options by name; None stands for the environment's own and is left out.
        parameters: what :func:`named_values` gave.

    Raises:
        ValueError: there is no such environment or parameter, or one of the economy's is out of range.
    """
    arguments = {name: value for name, value in given.items() if value is not None}
    own = _arguments_of(env_id)
    config_type: type[MarketConfig] = registered(
        "scenario", parameters.get("scenario", MarketConfig.scenario), SCENARIOS
    ).config_type
    economy = {item.name for item in dataclasses.fields(config_type)} if "config" in own else set()
    unknown = sorted(set(parameters) - own - economy)
    if unknown:
        raise ValueError(f"`parameters` of {env_id} must be some of {sorted(own | economy)}, got {unknown}")
    changes = {name: value for name, value in parameters.items() if name in economy - own}
    arguments |= {name: value for name, value in parameters.items() if name not in changes}
    return with_economy(arguments, **changes)
