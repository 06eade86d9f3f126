"""What the subcommands share: options from a dataclass, refusals in one line, text to the terminal."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tqdm import tqdm

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


def check_folder(out: Path) -> Path:
    """A folder that may be written to.

    Raises:
        ValueError: it is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` must be a folder, got the file {out}")
    return out


@contextlib.contextmanager
def counting_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar, where there is a terminal; the block gets a function of what is done and of all there is to do."""
    with tqdm(unit=unit, unit_scale=True, leave=False, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


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


def taken_arguments(env_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something, by name, if the environment takes them.

    Args:
        env_id: a registered id.
        given: options by name; None stands for the environment's own and is left out.

    Raises:
        ValueError: there is no such environment, or it takes no such argument.
    """
    arguments = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(type(make_markets(env_id, 1))).parameters
    others = sorted(set(arguments) - set(taken))
    if others and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        raise ValueError(f"`{others[0]}` must be left out for {env_id}, which has no such argument")
    return arguments


def own_arguments(env_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of an environment that a checkpoint can hold, from what :func:`named_values` gave.

    A parameter of a `config` that may be given as a mapping goes into one; those of an economy may not.

    Raises:
        ValueError: there is no such environment, or it has no such argument.
    """
    if not parameters:
        return {}
    own, config = _arguments_of(env_id)
    return _with_config(env_id, parameters, own, config)


def _arguments_of(env_id: str) -> tuple[set[str], Any]:
    """Names of an environment's arguments, and its `config`, where that is no economy."""
    markets: Any = make_markets(env_id, 1)
    markets.close()
    own = set(inspect.signature(type(markets)).parameters) - {"num_envs", "kwargs"}
    config = getattr(markets, "config", None) if "config" in own else None
    return own, None if isinstance(config, MarketConfig) else config


def _with_config(env_id: str, parameters: Mapping[str, Any], own: set[str], config: Any) -> dict[str, Any]:
    """Parameters that are no arguments of their own, but of the `config`, as a mapping `config`."""
    fields = set() if config is None else {item.name for item in dataclasses.fields(config)}
    if unknown := sorted(set(parameters) - own - fields):
        raise ValueError(f"`parameters` of {env_id} must be some of {sorted(own | fields)}, got {unknown}")
    arguments = {name: value for name, value in parameters.items() if name in own}
    if changes := {name: value for name, value in parameters.items() if name not in own}:
        arguments["config"] = {**arguments.get("config", {}), **changes}
    return arguments


def environment_arguments(env_id: str, given: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of an environment from options and from named parameters.

    A parameter that is one of the economy's, or of another environment's `config`, goes into a `config`, on top of the
    sizes; another one goes to the environment as it is.

    Args:
        env_id: a registered id.
        given: options by name; None stands for the environment's own and is left out.
        parameters: what :func:`named_values` gave.

    Raises:
        ValueError: there is no such environment or parameter, or one of the economy's is out of range.
    """
    arguments = taken_arguments(env_id, given)
    own, config = _arguments_of(env_id)
    if config is not None:
        return {**arguments, **_with_config(env_id, parameters, own, config)}
    scenario = parameters.get("scenario", MarketConfig.scenario)
    config_type: type[MarketConfig] = registered("scenario", scenario, SCENARIOS).config_type
    economy = {item.name for item in dataclasses.fields(config_type)} if "config" in own else set()
    if unknown := sorted(set(parameters) - own - economy):
        raise ValueError(f"`parameters` of {env_id} must be some of {sorted(own | economy)}, got {unknown}")
    changes = {name: value for name, value in parameters.items() if name in economy - own}
    arguments |= {name: value for name, value in parameters.items() if name not in changes}
    return with_economy(arguments, **changes)
