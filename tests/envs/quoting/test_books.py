"""Market making on a recorded book: quotes, fills by hand, accounts, spans, what is known, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from hmgym.agents import baselines_of, evaluate
from hmgym.agents.quoting_books import book_models, book_strategies
from hmgym.data import BookHistory, read_book, synthetic_book
from hmgym.envs import make_markets
from hmgym.envs.quoting import BookQuoting
from hmgym.envs.quoting.books import default_penalty
from hmgym.market_making import BookReplay
from hmgym.market_making.fit import fit_fills
from hmgym.market_making.replay import fill_shares
from tests.data.recordings import excerpts, lobster, snapshot, spot_events, stream_lines, write

ENV = "hmgym/LOBMarketMaking-v0"
TICK = 0.01
ROWS = 60


def book(trades=(), *, rows=ROWS, drift=0, **changes):
    """Bids 9999, 9998, 9996 ticks of sizes 30, 20, 10; asks 10002, 10003, 10005 likewise; mid 10000.5.

    `trades` are (row, price in ticks, size, side); every row is `drift` ticks above the one before.
    """
    shift = drift * np.arange(rows)[:, None]
    trades = sorted(trades, key=lambda trade: trade[0])
    row, level, size, side = np.array(trades, np.float64).reshape(-1, 4).T
    fields = {
        "time": np.arange(rows), "bid_price": (np.array([9999, 9998, 9996]) + shift) / 100,
        "bid_size": np.tile([30, 20, 10], (rows, 1)), "ask_price": (np.array([10002, 10003, 10005]) + shift) / 100,
        "ask_size": np.tile([30, 20, 10], (rows, 1)), "trade_time": row + 0.5, "trade_price": level / 100,
        "trade_size": size, "trade_side": side, "trade_row": row, "tick": TICK, "source": "a recording",
    }  # fmt: skip
    return BookHistory(**(fields | changes))


@pytest.mark.parametrize(
    ("depth", "bid", "ask"),
    [
        (0.0, 10000, 10001),
        (0.005, 10000, 10001),
        (0.006, 9999, 10002),
        (0.015, 9999, 10002),
        (0.016, 9998, 10003),
        (1.0, 9900, 10101),
        (-0.005, 10001, 10000),
        (-0.5, 10001, 10000),  # a tick inside the other side's best
    ],
)
def test_quotes_are_on_tick_and_never_cross(depth, bid, ask):
    replay = BookReplay(book())
    quotes = replay.quotes(np.array([0]), np.array([[depth, depth]]))
    assert [int(side[0]) for side in quotes] == [bid, ask]
    assert replay.price(quotes[0])[0] == bid / 100


def mirrored(trades):
    return [(row, 20001 - level, size, -side) for row, level, size, side in trades]


@pytest.mark.parametrize(
    ("trades", "bid", "back", "front"),
    [
        ([(3, 9998, 1, -1)], 9999, True, True),  # beyond our price
        ([(3, 9999, 30, -1)], 9999, False, True),  # the queue and no more
        ([(3, 9999, 30, -1), (4, 9999, 1, -1)], 9999, True, True),
        ([(3, 9999, 31, -1)], 9999, True, True),
        ([(3, 9999, 20, -1), (12, 9999, 20, -1)], 9999, False, True),  # the second is of the next step
        ([(10, 9998, 1, -1)], 9999, False, False),
        ([(9, 9998, 1, -1)], 9999, True, True),
        ([(3, 9998, 1, 1)], 9999, False, False),  # buyers do not meet bids
        ([(3, 10000, 99, -1)], 9999, False, False),  # above our price
        ([(3, 10000, 1, -1)], 10000, True, True),  # inside the spread nobody is ahead
        ([(3, 9997, 1, -1)], 9997, True, True),  # nor on an empty tick between two levels
        ([(3, 9996, 10, -1)], 9996, False, True),
        ([(3, 9996, 11, -1)], 9996, True, True),
        ([(3, 9995, 999, -1)], 9995, False, True),  # behind the last level the queue is unknown
        ([(3, 9994.5, 1, -1)], 9995, True, True),  # a price between two ticks
        ([(3, 9995.5, 1, -1)], 9995, False, False),
    ],
)
def test_fills_by_hand_and_their_mirror(trades, bid, back, front):
    for queue, expected in (("back", back), ("front", front)):
        rows, quote, far = np.array([0]), np.array([bid]), np.array([20000])
        bought, sold = BookReplay(book(trades), 10, queue).fills(rows, quote, far)
        assert (bool(bought[0]), bool(sold[0])) == (expected, False)
        bought, sold = BookReplay(book(mirrored(trades)), 10, queue).fills(rows, np.array([1]), 20001 - quote)
        assert (bool(bought[0]), bool(sold[0])) == (False, expected)


def test_sizes_that_are_decimal_fractions_are_no_more_than_their_sum():
    sizes = {"bid_size": np.tile([0.3, 0.2, 0.1], (ROWS, 1))}
    trades = [(1, 9999, 0.1, -1), (2, 9999, 0.2, -1)]  # 0.1 + 0.2 > 0.3 in floats
    assert not BookReplay(book(trades, **sizes)).fills(np.array([0]), np.array([9999]), np.array([20000]))[0][0]
    trades.append((3, 9999, 0.00001, -1))
    assert BookReplay(book(trades, **sizes)).fills(np.array([0]), np.array([9999]), np.array([20000]))[0][0]


def test_a_level_that_nobody_quotes_is_behind_the_last():
    price = np.tile([99.99, 99.98, np.nan], (ROWS, 1))
    size = np.tile([30.0, 20.0, 0.0], (ROWS, 1))
    replay = BookReplay(book([(3, 9996, 99, -1)], bid_price=price, bid_size=size))
    assert not replay.fills(np.array([0]), np.array([9996]), np.array([20000]))[0][0]


def test_a_step_by_hand():
    trades = [(row, 9990, 1, -1) for row in range(ROWS)]
    simulator = BookQuoting(book(trades, drift=1), 5, 2, max_inventory=3, running_penalty=0.01, terminal_penalty=0.5)
    generators = [np.random.default_rng(0)]
    simulator.reset(np.array([0]), generators)
    start = int(np.round(simulator.infos()["mid"][0] * 100 - 10000.5))
    first = simulator.step(simulator.action_map.from_depths([0.015], [0.015])[:, None], generators)
    info = simulator.infos()
    assert info["bid"][0] == (9999 + start) / 100
    assert info["ask"][0] == (10002 + start) / 100
    assert (info["inventory"][0], bool(info["bought"][0]), bool(info["sold"][0])) == (1, True, False)
    # Half the spread and mid's five ticks, less the penalty of a lot.
    assert first.reward[0, 0] == pytest.approx(0.015 + 0.05 - 0.01)
    assert not first.terminated[0, 0]
    second = simulator.step(simulator.action_map.from_depths([0.015], [0.015])[:, None], generators)
    assert second.terminated[0, 0]
    assert second.reward[0, 0] == pytest.approx(0.015 + 2 * 0.05 - 4 * 0.01 - 4 * 0.5)


def episode(env, seed=0, steps=1000):
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    yield observation, 0.0, info
    for _ in range(steps):
        observation, reward, terminated, _, info = env.step(rng.uniform(-1.2, 1.2, 2).astype(np.float32))
        yield observation, reward, info
        if terminated:
            return


@pytest.mark.parametrize("queue", ["back", "front"])
def test_cash_and_inventory_are_conserved_and_quotes_stand_outside_the_other_side(queue):
    env = gym.make(ENV, reward="pnl", queue=queue, max_inventory=2).unwrapped
    best_bid, best_ask = env.replay.best_bid * TICK, env.replay.best_ask * TICK
    trades = 0
    for seed in range(5):
        cash, inventory, total, before = 0.0, 0, 0.0, None
        for observation, reward, info in episode(env, seed):
            row = int(env.simulator._row[0])
            assert env.observation_space.contains(observation)
            assert info["mid"] == pytest.approx(0.5 * (best_bid[row] + best_ask[row]))
            if before is not None:
                assert info["bid"] < best_ask[before] - 0.5 * TICK
                assert info["ask"] > best_bid[before] + 0.5 * TICK
                for quote in (info["bid"], info["ask"]):
                    assert quote / TICK == pytest.approx(round(quote / TICK), abs=1e-6)
                cash += info["sold"] * info["ask"] - info["bought"] * info["bid"]
                inventory += int(info["bought"]) - int(info["sold"])
                trades += int(info["bought"]) + int(info["sold"])
                total += reward
            assert info["cash"] == pytest.approx(cash, abs=1e-9)
            assert (info["inventory"], abs(inventory) <= 2) == (inventory, True)
            assert info["profit"] == pytest.approx(cash + inventory * info["mid"], abs=1e-9)
            assert total == pytest.approx(info["profit"], abs=1e-9)
            before = row
        assert observation[1] == 0.0
    assert trades > 20


def test_the_limit_holds_on_both_sides():
    for side in (1, -1):
        trades = [(row, 10000 + 100 * side, 1, side) for row in range(ROWS)]
        env = gym.make(ENV, book=book(trades), steps=4, max_inventory=2)
        *_, (_, _, info) = episode(env)
        assert info["inventory"] == -2 * side


def test_spans_and_starting_rows():
    recording = book(rows=100)
    expected = {"training": (0, 70), "held-out": (70, 100), "all": (0, 100)}
    for history, (first, after) in expected.items():
        env = make_markets(ENV, 400, book=recording, events_per_step=5, steps=4, history=history)
        env.reset(seed=0)
        rows = env.simulator._row
        assert (rows.min(), rows.max()) == (first, after - 1 - 20)
        for _ in range(4):
            env.step(np.zeros((400, 2), np.float32))
        assert (env.simulator._row.max(), env.simulator._row.min()) == (after - 1, first + 20)
    with pytest.raises(ValueError, match=r"`steps` × `events_per_step` must be < 30, the rows of the span 'held-out'"):
        make_markets(ENV, 1, book=recording, events_per_step=5, steps=6, history="held-out")
    make_markets(ENV, 1, book=recording, events_per_step=29, steps=1, history="held-out")


def changed_after(recording, row):
    """Other quotes from a row on, other trades from the one before it, and the held-out span as it is up to there."""
    later, later_trades = np.arange(len(recording.time)) >= row, recording.trade_row >= row
    moves = {
        name: np.where(later[:, None], getattr(recording, name) + sign * 7 * TICK, getattr(recording, name))
        for name, sign in (("bid_price", -1), ("ask_price", 1))
    }
    sizes = {
        name: np.where(later[:, None], 3.0 * getattr(recording, name), getattr(recording, name))
        for name in ("bid_size", "ask_size")
    }
    trades = {
        "trade_size": np.where(later_trades, 5.0 * recording.trade_size, recording.trade_size),
        "trade_side": np.where(later_trades, -recording.trade_side, recording.trade_side),
    }
    return dataclasses.replace(recording, **moves, **sizes, **trades)


def test_what_comes_later_is_not_seen():
    recording = synthetic_book(3, events=800)
    cut = 700  # held out, so that the scales are the same
    before, after = (BookReplay(one) for one in (recording, changed_after(recording, cut)))
    assert before.scales == after.scales
    np.testing.assert_array_equal(before.features[:cut], after.features[:cut])
    assert (before.features[cut:] != after.features[cut:]).any(1).all()
    histories = []
    for one in (recording, changed_after(recording, cut)):
        env = gym.make(ENV, book=one, history="held-out", steps=8)
        env.reset(seed=1)
        env.unwrapped.simulator._row[:] = 655
        rows = [env.unwrapped.simulator.observe()[0, 0]]
        rows += [env.step(np.full(2, -1.0, np.float32))[0] for _ in range(6)]
        histories.append(np.array(rows))
    np.testing.assert_array_equal(histories[0][:5], histories[1][:5])  # rows 655 … 695
    assert (histories[0][5:] != histories[1][5:]).any()


def test_observations_by_hand():
    trades = [(0, 10002, 6, 1), (4, 9999, 2, -1), (5, 10002, 100, 1)]
    size = np.tile([10.0, 20.0, 30.0], (ROWS, 1))
    env = gym.make(ENV, book=book(trades, drift=1, bid_size=size), events_per_step=5, steps=2)
    env.reset(seed=0)
    simulator = env.unwrapped.simulator
    simulator._row[:] = 5  # the trade of row 5 has not happened yet
    seen = dict(zip(simulator.observation_map.names, simulator.observe()[0, 0].tolist(), strict=True))
    scales = simulator.replay.scales
    expected = {
        "inventory": 0.0, "time_left": 1.0, "spread": 0.0, "best_imbalance": (10 - 30) / 40, "imbalance": 0.0,
        "step_return": 1.0 if scales.volatility == 0.0 else np.tanh(0.05 / scales.volatility),
        "trade_flow": np.tanh(4 / scales.volume),
    }  # fmt: skip
    for name, value in expected.items():
        assert seen[name] == pytest.approx(value, abs=1e-3), name


def test_scales_are_those_of_the_training_rows():
    recording = synthetic_book(5, events=600)
    replay = BookReplay(recording)
    moves = recording.mid[10:420] - recording.mid[:410]
    assert replay.scales.volatility == pytest.approx(moves.std())
    assert replay.scales.spread == pytest.approx(np.median((recording.ask_price - recording.bid_price)[:420, 0]))
    assert replay.scales.depth == pytest.approx(max(0.5 * replay.scales.spread, moves.std()))
    boxes = [
        gym.make(ENV, book=recording, steps=8, history=history).unwrapped.action_map for history in ("training", "all")
    ]
    assert boxes[0].to_depths(1.0) == boxes[1].to_depths(1.0) == pytest.approx(4 * replay.scales.depth)
    assert boxes[0].to_depths(-1.0) == 0.0


def test_rows_of_the_vector_are_single_environments():
    arguments = {"steps": 6, "max_inventory": 1, "running_penalty": 0.001}
    ours = gym.make_vec(ENV, 4, **arguments)
    theirs = SyncVectorEnv([lambda: gym.make(ENV, **arguments)] * 4)
    np.testing.assert_array_equal(ours.reset(seed=9)[0], theirs.reset(seed=9)[0])
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 0, (4, 2)).astype(np.float32)
        for mine, other in zip(ours.step(action)[:4], theirs.step(action)[:4], strict=True):
            np.testing.assert_array_equal(mine, other)


def test_the_default_penalty_and_rewards():
    simulator = BookQuoting()
    penalty = default_penalty(simulator.replay, 10)
    assert simulator.running_penalty == penalty == pytest.approx(simulator.replay.scales.volatility / 20)
    for reward in ("pnl", "sharpe"):
        assert np.isfinite([reward for _, reward, _ in episode(gym.make(ENV, reward=reward))]).all()


def test_the_model_is_measured_on_the_training_rows():
    recording = synthetic_book(2, events=1000)
    models = [book_models(BookQuoting(one, steps=5))[0] for one in (recording, changed_after(recording, 705))]
    assert models[0] == models[1]
    simulator = BookQuoting(recording, steps=5)
    model, averse = book_models(simulator)
    assert (model.horizon, model.running_penalty, model.risk_aversion) == (5.0, simulator.running_penalty, 0.0)
    assert 0.5 * averse.risk_aversion * model.volatility**2 == pytest.approx(simulator.running_penalty)
    depths = np.linspace(0.0, 2.0 * simulator.replay.scales.depth, 5)
    shares = fill_shares(simulator.replay, depths, np.arange(690)).mean(1)
    assert (np.diff(shares) <= 0.0).all()
    fitted = np.minimum(1.0, model.arrival_rate * np.exp(-model.depth_decay * depths))
    assert fitted == pytest.approx(shares, abs=0.1)


def test_the_fit_of_fills():
    depths = np.linspace(0.0, 2.0, 33)
    rate, decay = fit_fills(depths, 0.4 * np.exp(-3.0 * depths), 1000, 1.0)
    assert (rate, decay) == pytest.approx((0.4, 3.0))
    for shares in (np.zeros(33), np.eye(33)[4] * 0.2, np.full(33, 0.2), np.linspace(0.1, 0.2, 33)):
        rate, decay = fit_fills(depths, shares, 1000, 0.5)
        assert decay == 2.0
        assert rate * np.exp(-decay * depths).sum() == pytest.approx(shares.sum() or 0.5 / 1000)


def test_strategies_of_a_book_in_which_nothing_is_ever_filled_or_moves():
    simulator = BookQuoting(book(), 5, 2)
    assert simulator.replay.scales.volatility == simulator.running_penalty == 0.0
    simulator.reset(np.array([0]), [np.random.default_rng(0)])
    for reward in ("inventory_penalty", "pnl", "sharpe"):
        for strategy in book_strategies(simulator, reward).values():
            assert np.isfinite(strategy.act(simulator.state)).all()


def test_baselines_are_evaluated_on_both_spans():
    arguments = {"book": synthetic_book(4, events=800), "steps": 10}
    names = {"random", "hjb", "avellaneda_stoikov", "symmetric", "inventory_aware", "constant"}
    for history in ("training", "held-out"):
        baselines = baselines_of(ENV, {**arguments, "history": history})
        assert set(baselines) == names
        hjb = baselines["hjb"]
        assert hjb.env_kwargs["history"] == history
        assert evaluate(hjb.policy, ENV, episodes=4, env_kwargs=hjb.env_kwargs).terminated.all()


@pytest.fixture
def recordings(tmp_path):
    """Descriptions of small files, one a format."""
    messages, rows = lobster(0)
    files = [str(write(tmp_path / f"{name}.csv", lines)) for name, lines in (("m", messages), ("b", rows))]
    stream = str(write(tmp_path / "spot_BTCUSDT.jsonl", stream_lines(spot_events())))
    return {"lobster": files}, {"binance": stream, "symbol": "BTCUSDT", "market": "spot", "levels": 2}


def test_a_description_names_a_book(recordings, tmp_path):
    for description in recordings:
        assert json.loads(json.dumps(description)) == description
        found = read_book(description)
        assert read_book(description) is found  # read once
        assert read_book(found) is found
    assert read_book(recordings[1]).levels == 2
    assert read_book({"lobster": tuple(recordings[0]["lobster"]), "levels": 1}).levels == 1
    (tmp_path / "spot_BTCUSDT_snapshot.json").write_text(json.dumps(snapshot()))
    assert len(read_book({"binance": tmp_path, "symbol": "BTCUSDT"}).time) == 4
    env = gym.make(ENV, book=recordings[0], events_per_step=2, steps=5)
    assert len(list(episode(env))) == 6


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("book.csv", '`book` must be a BookHistory, {"lobster"'),
        ({}, "`book` must be a BookHistory"),
        ({"lobster": ["a", "b"], "binance": "c"}, "`book` must be a BookHistory"),
        ({"lobster": "messages.csv"}, r'`book` must be {"lobster": \[messages, book\]}'),
        ({"lobster": ["a"]}, r'`book` must be {"lobster": \[messages, book\]}'),
        ({"lobster": ["a", 1]}, "`book` must name files, got 1"),
        ({"lobster": ["a", "b"], "symbol": "X"}, r"may also have \['levels'\], got \['symbol'\]"),
        ({"binance": "folder"}, '`book` must be {"binance": folder or file, "symbol"'),
        ({"binance": ["folder"], "symbol": "X"}, '`book` must be {"binance": folder or file'),
        ({"binance": "folder", "symbol": ["X"]}, "`symbol` of `book` must be text or a number"),
        ({"lobster": ["no such file", "b"]}, "no such file: cannot be read"),
    ],
)
def test_descriptions_that_name_no_book(description, message):
    with pytest.raises(ValueError, match=message):
        make_markets(ENV, 1, book=description)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"events_per_step": 0}, "`events_per_step` must be an integer >= 1"),
        ({"events_per_step": 2800}, "`events_per_step` must be < 2800, the training rows of synthetic book, seed 0"),
        ({"steps": 0}, "`steps` must be an integer >= 1"),
        ({"steps": 280}, "must be < 2800, the rows of the span 'training' of synthetic book, seed 0, got 280 × 10"),
        ({"queue": "middle"}, r"`queue` must be one of \['back', 'front'\], got 'middle'"),
        ({"reward": "luck"}, "`reward` must be one of"),
        ({"max_inventory": 0}, "`max_inventory` must be an integer >= 1"),
        ({"history": "2012"}, r"`history` must be one of \['training', 'held-out', 'all'\], got '2012'"),
        ({"running_penalty": -1.0}, "`running_penalty` must be a number >= 0"),
        ({"terminal_penalty": np.nan}, "`terminal_penalty` must be a number >= 0"),
        ({"num_envs": 0}, "`num_envs` must be an integer >= 1"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    number = arguments.pop("num_envs", 1)
    with pytest.raises(ValueError, match=message):
        make_markets(ENV, number, **arguments)


def test_books_that_cannot_be_replayed():
    with pytest.raises(
        ValueError, match=r"a recording, row 0: `bid_price` must be multiples of the tick 0\.02, got 99"
    ):
        BookReplay(book(tick=0.02))
    trades = [(1, 9999, 1, -1), (3, 9999, 1, -1)]
    with pytest.raises(ValueError, match="a recording, trade 1: `trade_row` must not descend, got 1"):
        BookReplay(book(trades, trade_row=[3, 1]))
    with pytest.raises(ValueError, match="`book` must be a BookHistory, got None"):
        BookReplay(None)


def test_a_synthetic_book_is_that_of_its_seed():
    first, again, other = synthetic_book(7, events=300), synthetic_book.__wrapped__(7, events=300), synthetic_book(8)
    np.testing.assert_array_equal(first.bid_price, again.bid_price)
    np.testing.assert_array_equal(first.trade_row, again.trade_row)
    assert not np.array_equal(first.bid_price[:100], other.bid_price[:100])
    assert (np.diff(first.trade_row) >= 0).all()
    best = np.where(first.trade_side > 0, first.ask_price[first.trade_row, 0], first.bid_price[first.trade_row, 0])
    assert np.mean(np.isclose(best, first.trade_price)) > 0.5
    with pytest.raises(ValueError, match="`events` must be an integer >= 2, got 1"):
        synthetic_book(events=1)


AAPL = "AAPL_2012-06-21_34200000_57600000"
MSFT = "MSFT_2012-06-21_34200000_37800000"


@pytest.mark.parametrize(
    "description",
    [
        {"lobster": [f"lobster/{AAPL}_message_10.csv", f"lobster/{AAPL}_orderbook_10.csv"]},
        {"lobster": [f"lobster/{MSFT}_message_50.csv", f"lobster/{MSFT}_orderbook_50_first10levels.csv"]},
        {"binance": "binance", "symbol": "BTCUSDT", "market": "spot"},
        {"binance": "binance", "symbol": "BTCUSDT", "market": "usdm"},
    ],
)
def test_an_episode_on_each_of_the_real_recordings(description):
    folder = excerpts()
    if "lobster" in description:
        description = {"lobster": [str(folder / name) for name in description["lobster"]]}
    else:
        description = {**description, "binance": str(folder / "binance")}
    for history in ("training", "held-out"):
        env = gym.make(ENV, book=description, steps=20, history=history)
        periods = list(episode(env))
        assert len(periods) == 21
        assert all(env.observation_space.contains(observation) for observation, *_ in periods)
        info = periods[-1][2]
        assert info["profit"] == pytest.approx(info["cash"] + info["inventory"] * info["mid"])
    strategies = book_strategies(env.unwrapped.simulator)
    assert np.isfinite([strategy.act(env.unwrapped.state) for strategy in strategies.values()]).all()
