"""What a picture of a pool's episode shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hmgym.analysis.figures import ASSETS, CROWD, LEARNER
from hmgym.envs.panels import Line, Panel
from hmgym.envs.pool_rule_box import RULE_RANGES
from hmgym.envs.protocol import FloatArray


@dataclass(frozen=True, kw_only=True)
class PoolSeries:
    """One pool's episode so far, T rows.

    Attributes:
        assets: names of the N assets.
        prices: (T, N), money.
        weights: (T, N).
        value: (T,) of the reserves, 1 at the start.
        hold: (T,) of the first reserves, 1 at the start.
        rule: (T, 4) parameters of the rule that moved the weights, as shares of their scales, the mean over assets;
            NaN at the start. None where the action moves the weights itself.
    """

    assets: tuple[str, ...]
    prices: FloatArray
    weights: FloatArray
    value: FloatArray
    hold: FloatArray
    rule: FloatArray | None = None

    period: ClassVar[str] = "month"

    def __len__(self) -> int:
        return len(self.value)

    def panels(self) -> tuple[Panel, ...]:
        """Prices, weights, the rule where the action sets it, and value beside that of the first reserves."""
        colours = [ASSETS[i % len(ASSETS)] for i in range(len(self.assets))]

        def each(values: FloatArray) -> tuple[Line, ...]:
            named = zip(self.assets, colours, values.T, strict=True)
            return tuple(Line(values=one, label=name, colour=colour) for name, colour, one in named)

        rule: tuple[Panel, ...] = ()
        if self.rule is not None:
            named = zip(RULE_RANGES, ASSETS, self.rule.T, strict=False)
            lines = tuple(Line(values=one, label=name.replace("_", " "), colour=own) for name, own, one in named)
            rule = (Panel(title="Rule", unit="of each scale", floor=0.0, lines=lines),)
        return (
            Panel(title="Price", unit="of the first", wide=True, log=True, lines=each(self.prices / self.prices[0])),
            Panel(title="Weights", unit="of the pool's value", floor=0.0, lines=each(self.weights)),
            *rule,
            Panel(
                title=f"Value {self.value[-1]:.2f}, held {self.hold[-1]:.2f}", unit="of the first", log=True,
                compared=True,
                lines=(Line(values=self.value, label="pool", colour=LEARNER),
                       Line(values=self.hold, label="first reserves held", colour=CROWD, dashed=True)),
            ),
        )  # fmt: skip
