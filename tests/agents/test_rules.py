"""One-line rules: what they do, how they read, and that a search finds the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hmgym.agents import evaluate
from hmgym.agents.evaluation import evaluate_copies
from hmgym.agents.features import feature, features_of
from hmgym.agents.probes import choose_rules
from hmgym.agents.rule_search import RuleBudget, choose_best_rule, filter_families, rule_families
from hmgym.agents.rules import RuleFamily, RulePolicy
from hmgym.envs import make_markets

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 10}
QUICK = RuleBudget(
    candidates=8, screening_episodes=4, families=2, restarts=2, population=4, generations=3, search_episodes=4
)
IDS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0", "hmgym/LeverageBeliefs-v0")


def family_of(env_id: str, name: str, kind: str, form: str, **changes: Any) -> RuleFamily:
    markets = make_markets(env_id, 1, **SMALL)
    found = feature(markets.observation_map, name, kind)
    return RuleFamily(feature=found, form=form, action_map=markets.action_map, **changes)


def test_features_are_in_their_own_units() -> None:
    markets = make_markets("hmgym/Beliefs-v0", 5, **SMALL)
    observation, _ = markets.reset(seed=3)
    state = markets.state
    each = {one.name: one(observation) for one in features_of(markets.observation_map, per_asset=True)}
    np.testing.assert_allclose(each["news"], state.news, atol=1e-6)
    np.testing.assert_allclose(each["signal"], state.signal, atol=1e-6)
    np.testing.assert_allclose(each["undervaluation"], state.log_value - state.prices.log(), atol=1e-6)
    np.testing.assert_allclose(
        feature(markets.observation_map, "news", "mean size")(observation)[:, 0], state.news.abs().mean(1), atol=1e-6
    )
    with pytest.raises(ValueError, match="`name` must be one of"):
        feature(markets.observation_map, "nothing")


def test_actions_follow_the_feature() -> None:
    leverage = family_of("hmgym/Leverage-v0", "undervaluation", "mean", "linear", center=0.1, spread=0.2)
    x = np.array([[0.1], [0.3], [9.0]])
    np.testing.assert_allclose(leverage.actions(np.tile([0.2, 0.5], (3, 1)), x), [[0.2], [0.7], [1.0]])
    assert leverage.formula([0.0, 1.0]).startswith("log ℓ = ")
    beliefs = family_of("hmgym/LeverageBeliefs-v0", "signal", "each", "threshold", spread=0.1)
    assert beliefs.size == 4
    rows = np.tile([-0.4, 0.6, 0.5, 1.0], (1, 1))  # low, high, threshold at one deviation, leverage
    np.testing.assert_allclose(beliefs.actions(rows, np.array([[0.05, 0.15]])), [[1.0, -0.4, 0.6]])
    assert beliefs.formula(rows[0]) == "return_i = -0.1 where signal_i < +0.1, else +0.15; log ℓ = +1.1"
    with pytest.raises(ValueError, match="`parameters` must have shape"):
        RulePolicy(beliefs, [0.0])
    with pytest.raises(ValueError, match="`form` must be one of"):
        family_of("hmgym/Leverage-v0", "undervaluation", "mean", "cubic")


def test_the_formula_is_what_the_market_is_asked_for() -> None:
    markets = make_markets("hmgym/Leverage-v0", 3, **SMALL)
    observation, _ = markets.reset(seed=1)
    family = family_of("hmgym/Leverage-v0", "volatility", "mean", "linear", center=0.08, spread=0.02)
    policy = RulePolicy(family, [0.1, -0.3])
    asked = markets.action_map.to_market(policy.predict(observation)[0][:, None], markets.state.prices)
    words = policy.name.split()
    constant, slope = float(words[3]), float(words[4])
    volatility = markets.state.variance.sqrt().mean(1).numpy()
    np.testing.assert_allclose(asked.long_leverage[:, 0].log(), constant + slope * volatility, atol=0.02)


@pytest.mark.parametrize("env_id", IDS)
def test_rules_side_by_side_are_those_one_by_one(env_id: str) -> None:
    per_asset = env_id != IDS[0]
    family = family_of(env_id, "signal", "each" if per_asset else "mean", "linear", spread=0.05)
    parameters = np.random.default_rng(0).uniform(-1.0, 1.0, (3, family.size))
    together = evaluate_copies(
        RulePolicy(family, parameters), 3, env_id, episodes=5, first_seed=7, env_kwargs=SMALL, batch=6
    )
    for row, returns in zip(parameters, together, strict=True):
        alone = evaluate(RulePolicy(family, row), env_id, episodes=5, first_seed=7, env_kwargs=SMALL)
        np.testing.assert_array_equal(alone.returns, returns)


@pytest.mark.parametrize("env_id", IDS)
def test_a_search_returns_the_best_it_found(env_id: str) -> None:
    families = rule_families(env_id, first_seed=5, env_kwargs=SMALL)[:4]
    seen: list[tuple[int, int]] = []
    choice = choose_best_rule(
        env_id, budget=QUICK, episodes=6, first_seed=5, env_kwargs=SMALL, families=families,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (choice.episodes, choice.episodes)
    assert set(choice.screening) == {family.label for family in families}
    again = evaluate(choice.policy, env_id, episodes=6, first_seed=5, env_kwargs=SMALL)
    assert again.returns.mean() == pytest.approx(choice.value, abs=1e-12)
    assert choice.value == choice.restarts[0]
    assert choice.described()["formula"] == choice.policy.name


def test_a_search_finds_a_known_best() -> None:
    """Where signals are exact and move no price, the belief that follows them earns more than one that does not."""
    from hmgym.agents.probes import with_economy

    kwargs = with_economy(
        {**SMALL, "n_investors": 12}, signal_r2=0.9, regime_switch=0.0, learner_share=0.001, trading_cost=0.0
    )
    names = ("linear in signal", "linear in last_return", "linear in short_interest")
    families = [one for one in rule_families(IDS[1], first_seed=5, env_kwargs=kwargs) if one.label in names]
    budget = RuleBudget(
        candidates=16, screening_episodes=32, families=1, restarts=1, population=4, generations=4, search_episodes=32
    )
    choice = choose_best_rule(IDS[1], budget=budget, episodes=32, env_kwargs=kwargs, families=families)
    assert choice.family == "linear in signal"
    assert choice.policy.parameters[0, 1] > 0.0


def test_hidden_regimes_have_a_filter_rule_too() -> None:
    found = choose_rules(
        IDS[0], {**SMALL, "hidden_regime": True}, budget=QUICK, protocol=_tiny()
    )  # fmt: skip
    assert list(found) == ["best_rule", "filter_rule"]
    assert "P(informative)" in found["filter_rule"].policy.name
    visible = choose_rules(IDS[0], {**SMALL, "hidden_regime": False}, budget=QUICK, protocol=_tiny())
    assert list(visible) == ["best_rule"]
    assert filter_families(IDS[1], SMALL)[0].formula([0.0, 1.0]).startswith("return_i = +0 +8.33 · P(informative)")


def _tiny() -> Any:
    from hmgym.agents import Protocol

    return Protocol(episodes=4, screening_episodes=2)
