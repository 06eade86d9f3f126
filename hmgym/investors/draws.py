"""Random draws by name, and how they are laid out: what investors ask for and markets draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


@dataclass(frozen=True)
class Draws:
    """Draws by name, each a tensor with leading dimension E: ``shocks.news``."""

    tensors: Mapping[str, Tensor]

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self.__dict__["tensors"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None

    def map(self, function: Callable[[Tensor], Any]) -> Self:
        """The draws with a function applied to each."""
        return type(self)({name: function(tensor) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Layout:
    """Fields of one draw of a market and their shapes, in the order drawn: normals, innovations, uniforms."""

    normals: Shapes = field(default_factory=dict)
    innovations: Shapes = field(default_factory=dict)
    """uniforms of mean 0 and variance 1"""
    uniforms: Shapes = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.normals, *self.innovations, *self.uniforms]
        taken = {name for name in names if names.count(name) > 1} | {*names} & {"tensors", "map", "period"}
        if taken:
            raise ValueError(
                f"`Layout` must name every draw once, and none tensors, map or period, got {sorted(taken)}"
            )

    def __add__(self, other: Layout) -> Layout:
        """Both layouts; within each kind of draw this one's fields come first."""
        return Layout(
            normals=self.normals | other.normals,
            innovations=self.innovations | other.innovations,
            uniforms=self.uniforms | other.uniforms,
        )

    @property
    def shapes(self) -> Shapes:
        """Of every field."""
        return self.normals | self.innovations | self.uniforms

    def prefixed(self, prefix: str) -> Layout:
        """The same with every name after a prefix."""

        def named(group: Shapes) -> Shapes:
            return {prefix + name: shape for name, shape in group.items()}

        return Layout(named(self.normals), named(self.innovations), named(self.uniforms))
