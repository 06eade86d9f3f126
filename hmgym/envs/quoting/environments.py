"""The Gymnasium environments of market making in a simulated market: one, and E of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from hmgym.envs.face import BatchFace
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.quoting.model import ModelQuoting
from hmgym.envs.single import BatchEnv
from hmgym.envs.vector import BatchVectorEnv
from hmgym.market_making import QuotingConfig


class QuotingFace(BatchFace):
    """What is the simulated market maker's own in each of its environments."""

    _batch: ModelQuoting

    @property
    def config(self) -> QuotingConfig:
        """The market that runs."""
        return self._batch.config

    @property
    def action_map(self) -> DepthBox:
        """What an action means."""
        return self._batch.action_map


class MarketMakingEnv(QuotingFace, BatchEnv):
    """A market maker who quotes a bid and an ask in every step, with a limit on inventory.

    ## Description
    At mid S each side is filled with probability min(1, A e^{−kδ} dt), independently, where δ is the depth of the quote
    below or above mid; then mid moves by σ√dt Z, which the inventory after the fills carries. At the largest inventory
    nothing is bought, at the smallest nothing sold. The same chain as :func:`hmgym.market_making.exact_law` and
    :func:`hmgym.market_making.simulate`; the best policy is known (:class:`hmgym.market_making.InventoryHJB`).

    ## Action space
    A box of [-1, 1]: depth of the bid and of the ask, (1 + 2a)/k from mid, so from −1/k to 3/k. Entries outside are
    clipped, NaN and infinity raise.

    ## Observation space
    A float32 vector in [-1, 1]: inventory over its limit, and the share of steps that is left.

    ## Reward
    "inventory_penalty": change of cash and inventory at mid, less φ q² dt and, at the end, a q². "pnl": without these.
    "sharpe": how much the change moves a moving Sharpe ratio.

    ## Start and end
    No inventory, no cash. An episode is terminated after the steps of its horizon and never truncated.

    ## Info
    `mid`, `bid` and `ask` the last quotes (price; NaN after a reset), `bought` and `sold` whether they were filled,
    `inventory` lots, `cash` and `profit` money.

    Args:
        config: the market, or what differs in it, by name, from that of Avellaneda and Stoikov's table; None is that.
        reward: "inventory_penalty", "pnl" or "sharpe".
        render_mode: None, "rgb_array" or "human".

    Raises:
        ValueError: an argument is unknown or of another type.
    """

    def __init__(
        self,
        config: QuotingConfig | Mapping[str, Any] | None = None,
        reward: str = "inventory_penalty",
        *,
        render_mode: str | None = None,
    ) -> None:
        batch = ModelQuoting(config, reward, 1, record=render_mode is not None)
        super().__init__(batch, render_mode)


class MarketMakingVectorEnv(QuotingFace, BatchVectorEnv):
    """E independent market makers stepped together; arguments and spaces as in :class:`MarketMakingEnv`.

    Row i, seeded s, equals the single environment seeded s + i, also across resets.

    Args:
        num_envs: number of market makers E.
        max_episode_steps: steps after which this environment truncates an episode itself; None never does.
        autoreset_mode: an :class:`~gymnasium.vector.AutoresetMode` or its value.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(
        self,
        config: QuotingConfig | Mapping[str, Any] | None = None,
        reward: str = "inventory_penalty",
        *,
        num_envs: int = 1,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        batch = ModelQuoting(config, reward, num_envs, record=render_mode is not None)
        super().__init__(
            batch, render_mode=render_mode, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode
        )
