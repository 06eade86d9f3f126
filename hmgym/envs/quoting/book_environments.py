"""The Gymnasium environments of market making on a recorded book: one, and E of them side by side."""

from __future__ import annotations

from gymnasium.vector import AutoresetMode

from hmgym.data import BookSource
from hmgym.envs.face import BatchFace
from hmgym.envs.quoting.books import BookQuoting
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.single import BatchEnv
from hmgym.envs.vector import BatchVectorEnv
from hmgym.market_making import BookReplay


class BookQuotingFace(BatchFace):
    """What is the market maker's on a recorded book in each of its environments."""

    _batch: BookQuoting

    @property
    def simulator(self) -> BookQuoting:
        """What runs."""
        return self._batch

    @property
    def replay(self) -> BookReplay:
        """The book and its rule of fills."""
        return self._batch.replay

    @property
    def action_map(self) -> DepthBox:
        """What an action means."""
        return self._batch.action_map


class LOBMarketMakingEnv(BookQuotingFace, BatchEnv):
    """A market maker who quotes a bid and an ask in every step of a recorded book, with a limit on inventory.

    ## Description
    A step is some rows of the book. At its start a bid and an ask of one lot are posted, on tick and never crossing,
    behind what is visible at their price; at its end they are taken back. Recorded trades fill them at their own price:
    one beyond the price at once, those at the price when more was traded there than the queue. Cancellations do not
    shorten the queue, and behind the last visible level it is unknown. Nothing recorded reacts to the market maker.
    See :mod:`hmgym.market_making.replay`.

    ## Action space
    A box of [-1, 1]: depth of the bid and of the ask, 2 (1 + a) times the book's scale of depths from mid: the larger
    of half the median spread and the standard deviation of mid's move in a step. Entries outside are clipped, NaN and
    infinity raise.

    ## Observation space
    A float32 vector in [-1, 1]: inventory over its limit, the share of steps that is left, spread, imbalance of sizes
    at the best level and over all, mid's move over the last step and over five, signed trade flow.

    ## Reward
    "inventory_penalty": change of cash and inventory at mid, less φ q² and, at the end, a q². "pnl": without these.
    "sharpe": how much the change moves a moving Sharpe ratio.

    ## Start and end
    At a row of the span that is drawn anew in every episode, no inventory, no cash. An episode is terminated after its
    steps and never truncated.

    ## Info
    `mid`, `bid` and `ask` the last quotes (price; NaN after a reset), `bought` and `sold` whether they were filled,
    `inventory` lots, `cash` and `profit` money.

    Args:
        book: a :class:`~hmgym.data.BookHistory`; or a description such as ``{"lobster": [messages, book]}`` or
            ``{"binance": folder, "symbol": "BTCUSDT", "market": "spot"}``, see :func:`~hmgym.data.read_book`; None is
            :func:`~hmgym.data.synthetic_book`, to try things out.
        events_per_step: rows of the book a step.
        steps: of an episode.
        queue: "back" or "front" of what is visible at a quote's price.
        reward: "inventory_penalty", "pnl" or "sharpe".
        max_inventory: Q, lots; nothing is bought at Q and nothing sold at −Q.
        history: rows that episodes lie in: "training", the first 70 %, "held-out", the other 30 %, or "all". Scales and
            the default penalty are always those of the training rows.
        running_penalty: φ, money / lot² a step; None is σ / 2Q, σ the standard deviation of mid's move in a step.
        terminal_penalty: a, money / lot².
        render_mode: None, "rgb_array" or "human".

    Raises:
        ValueError: an argument is none of these, or the span is too short for an episode.
    """

    def __init__(
        self,
        book: BookSource | None = None,
        events_per_step: int = 10,
        steps: int = 50,
        queue: str = "back",
        reward: str = "inventory_penalty",
        max_inventory: int = 10,
        history: str = "training",
        running_penalty: float | None = None,
        terminal_penalty: float = 0.0,
        *,
        render_mode: str | None = None,
    ) -> None:
        batch = BookQuoting(
            book, events_per_step, steps, queue, reward, max_inventory, history, running_penalty, terminal_penalty,
            record=render_mode is not None,
        )  # fmt: skip
        super().__init__(batch, render_mode)


class LOBMarketMakingVectorEnv(BookQuotingFace, BatchVectorEnv):
    """E independent market makers on one book; arguments and spaces as in :class:`LOBMarketMakingEnv`.

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
        book: BookSource | None = None,
        events_per_step: int = 10,
        steps: int = 50,
        queue: str = "back",
        reward: str = "inventory_penalty",
        max_inventory: int = 10,
        history: str = "training",
        running_penalty: float | None = None,
        terminal_penalty: float = 0.0,
        *,
        num_envs: int = 1,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        batch = BookQuoting(
            book, events_per_step, steps, queue, reward, max_inventory, history, running_penalty, terminal_penalty,
            num_markets=num_envs, record=render_mode is not None,
        )  # fmt: skip
        super().__init__(
            batch, render_mode=render_mode, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode
        )
