"""The Gymnasium environments of the market: one, and E of them side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from hmgym.checks import integer
from hmgym.data import PriceHistory
from hmgym.envs.actions import ActionMap
from hmgym.envs.batch import MarketBatch
from hmgym.envs.face import BatchFace
from hmgym.envs.observation import ObservationMap
from hmgym.envs.rewards import RewardFunction
from hmgym.envs.setup import make_batch
from hmgym.envs.single import BatchEnv
from hmgym.envs.vector import BatchVectorEnv
from hmgym.market import MarketConfig
from hmgym.market.pooled import PoolInvestor


class MarketFace(BatchFace):
    """What is the market's own in each of its environments."""

    _batch: MarketBatch

    @property
    def config(self) -> MarketConfig:
        """The economy that runs."""
        return self._batch.config

    @property
    def action_map(self) -> ActionMap:
        """What an action means."""
        return self._batch.action_map

    @property
    def observation_map(self) -> ObservationMap:
        """What an observation means."""
        return self._batch.observation_map


class MarketEnv(MarketFace, BatchEnv):
    """A learner among heterogeneous investors whose trades, with everybody's, make the price.

    ## Description
    Every month all investors post demand, one vector of prices clears it, and trades settle at that price. The learner
    is investor 0 and runs a fund: it sets its leverage limits, its beliefs, or both, and the market does the rest.

    ## Action space
    A box of [-1, 1]; which entries it has depends on the id. Entries outside are clipped, NaN and infinity raise.

    | id                         | entries (in this order)                                     |
    |----------------------------|-------------------------------------------------------------|
    | `hmgym/Leverage-v0`        | leverage ℓ: κ = θ = ℓ                                       |
    | `hmgym/Beliefs-v0`         | expected log return of each asset (and the scale of risk)   |
    | `hmgym/LeverageBeliefs-v0` | ℓ, expected log return of each asset (and the scale of risk)|

    Maps to natural units: :class:`~hmgym.envs.actions.ActionMap`.

    ## Observation space
    A float32 vector in [-1, 1], every entry ``tanh(x / scale)``; the table of entries, units and scales is
    :data:`~hmgym.envs.observation.OBSERVATION_TABLE`. It holds what the learner may know before it acts: this month's
    news and its private signal, never next month's news.

    ## Reward
    Change of log unit value; its sum is the log of the final ``info["unit_value"]``. Others by `reward`.

    ## Start and end
    An episode starts in a market that the seed draws. It is terminated when the unit value falls below the ruin
    fraction of the configuration; the registered ids truncate it after 120 months (`max_episode_steps`). A market that
    does not clear is truncated there and then, with a warning: the observation is the last one again, the reward 0.

    ## Info
    `prices (N,)`, `holdings (N,)` shares of the learner, `unit_value`, `wealth` money, `residual` and `iterations` of
    the clearing, `active_limits (N+1,)` int8, cash first: −1 at −κ, 1 at θ, 0 between. With `amplification`, also
    `gradient_amplification`: the norm of the derivative of the log prices of this period with respect to the action.
    `not_cleared` is there, and True, where the market did not clear. With pools, `pool_loss` is the money that they
    lost in this month against keeping what they held.

    Args:
        leverage: whether the action sets leverage limits (fixed by the id).
        beliefs: whether the action sets expected returns (fixed by the id).
        confidence: whether an action with beliefs also sets the scale of risk.
        n_assets: number of assets N; None takes that of `config`.
        n_investors: number of investors B, the learner included; None takes that of `config`.
        reward: a name of :data:`~hmgym.envs.rewards.REWARDS` or a function ``reward(previous, outcome, state)``.
        config: the economy; None is the default economy.
        render_mode: None, "rgb_array" or "human".
        amplification: whether `info` holds `gradient_amplification`, which costs a second clearing and its gradients.
        hidden_regime: whether the observation leaves out the regime, so that the learner has to infer from past signals
            and the news that followed whether signals are worth anything.
        leverage_axes: 1 for one limit ℓ = κ = θ, or 2 for κ and θ.
        history: of fundamentals, in place of the configuration's: "training", "held-out", "all" or a price history.
        scenario: who is in the market, a name in `hmgym.market.SCENARIOS`; None is that of `config`, or the crowd.
        pools: pools on a weighted invariant that join the market, their number or a sequence of
            :class:`~hmgym.market.pooled.PoolInvestor`; None is what `config` says, or none.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(
        self,
        *,
        leverage: bool = True,
        beliefs: bool = False,
        confidence: bool = False,
        n_assets: int | None = None,
        n_investors: int | None = None,
        reward: str | RewardFunction = "log_unit_value",
        config: MarketConfig | None = None,
        render_mode: str | None = None,
        amplification: bool = False,
        hidden_regime: bool = True,
        leverage_axes: int = 1,
        history: PriceHistory | str | None = None,
        scenario: str | None = None,
        pools: int | Sequence[PoolInvestor] | None = None,
    ) -> None:
        batch = make_batch(
            num_markets=1, leverage=leverage, beliefs=beliefs, confidence=confidence, n_assets=n_assets,
            n_investors=n_investors, reward=reward, config=config, record=render_mode is not None,
            amplification=amplification, hidden_regime=hidden_regime, leverage_axes=leverage_axes, history=history,
            scenario=scenario, pools=pools,
        )  # fmt: skip
        if batch.n_learners != 1:
            raise ValueError(
                "`config.n_learners` must be 1 in this environment (`hmgym.envs.parallel_env` takes many), "
                f"got {batch.n_learners}"
            )
        super().__init__(batch, render_mode)


class MarketVectorEnv(MarketFace, BatchVectorEnv):
    """E independent markets stepped together; arguments and spaces as in :class:`MarketEnv`.

    Row i, seeded s, equals the single environment seeded s + i, also across resets.

    With L learners in every market a row whose fund is ruined ends its episode; its next one begins at once in the same
    market, with the newcomer that takes the seat (unit value 1). See :class:`~hmgym.envs.vector.BatchVectorEnv`.

    Args:
        num_envs: number of markets E.
        n_learners: learners L of every market; None takes that of `config`. Without a `config` each has a target share
            of .05 of all wealth, or .5 / L where L is more than 10.
        max_episode_steps: periods after which this environment truncates an episode itself; None never does.
        autoreset_mode: an :class:`~gymnasium.vector.AutoresetMode` or its value, "NextStep", "SameStep", "Disabled";
            None is "NextStep", with several learners "SameStep".

    Raises:
        ValueError: an argument is out of range or unknown, or several learners have another mode than "SameStep".
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        n_learners: int | None = None,
        leverage: bool = True,
        beliefs: bool = False,
        confidence: bool = False,
        n_assets: int | None = None,
        n_investors: int | None = None,
        reward: str | RewardFunction = "log_unit_value",
        config: MarketConfig | None = None,
        render_mode: str | None = None,
        amplification: bool = False,
        hidden_regime: bool = True,
        leverage_axes: int = 1,
        history: PriceHistory | str | None = None,
        scenario: str | None = None,
        pools: int | Sequence[PoolInvestor] | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        batch = make_batch(
            num_markets=integer("num_envs", num_envs, 1), leverage=leverage, beliefs=beliefs, confidence=confidence,
            n_assets=n_assets, n_investors=n_investors, reward=reward, config=config, record=render_mode is not None,
            n_learners=n_learners, amplification=amplification, hidden_regime=hidden_regime,
            leverage_axes=leverage_axes, history=history, scenario=scenario, pools=pools,
        )  # fmt: skip
        super().__init__(
            batch, render_mode=render_mode, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode
        )

    def terminal_mark_gain(self) -> npt.NDArray[np.float64]:
        """What each learner's mark gained from its own trade of the last step, a row each, in log unit value.

        Wealth is marked at prices that the learner moved: a last trade can inflate a sum of rewards by this much.
        """
        return self._batch.terminal_mark_gain().ravel()
