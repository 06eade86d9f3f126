"""The command line: what it refuses, in one line and before anything is written, and what it passes on."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hmgym
from hmgym.agents import evaluate
from hmgym.agents.quoting import law_of, quoting_baselines
from hmgym.agents.report import record_episode
from hmgym.agents.rule_search import RuleBudget
from hmgym.agents.training import TrainingPlan, hyperparameters_of, train
from hmgym.cli import COMMANDS, main
from hmgym.commands.backtest import summary_of
from hmgym.commands.quoting import simulated_market
from hmgym.market_making import QuotingConfig, backtest

ROOT = Path(__file__).parents[1]
QUICK = ["--timesteps", "64", "--num-envs", "4", "--n-assets", "2", "--n-investors", "6", "--curve-episodes", "0"]
EPISODES = ["--episodes", "4", "--screening-episodes", "1"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Commands run torch on one thread; other tests need not."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Status and output of ``train.py``, run in a folder of its own."""

    def run_script(*arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["train.py", *arguments])
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run_script


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*EPISODES, "--episodes", "0"], "episodes"),
        ([*EPISODES, "--episodes", "1"], "episodes"),
        ([*EPISODES, "--episodes", "-3"], "episodes"),
        ([*EPISODES, "--seed", "-1"], "seed"),
        ([*EPISODES, "--env", "nope"], "env_id"),
        ([*EPISODES, "--algo", "apg", "--reward", "excess_return"], "reward"),
        (["--episodes", "4", "--screening-episodes", "0"], "screening_episodes"),
    ],
)
def test_what_cannot_be_evaluated_is_not_trained(
    arguments: list[str], named: str, tmp_path: Path, script: Callable[..., tuple[int, str, str]]
) -> None:
    status, printed, error = script(*QUICK, *arguments)
    assert status == 2
    assert error.startswith(f"hmgym train: error: `{named}` must be ")
    assert error.count("\n") == 1
    assert printed == ""
    assert not list(tmp_path.iterdir())


def test_a_used_folder_is_refused_and_another_plan_not_resumed(
    tmp_path: Path, script: Callable[..., tuple[int, str, str]]
) -> None:
    sizes = {"n_assets": 2, "n_investors": 6}
    train(TrainingPlan(timesteps=64, num_envs=4, curve_episodes=0, env_kwargs=sizes, out=tmp_path / "used"))
    status, _, error = script(*QUICK, *EPISODES, "--out", "used")
    assert status == 2
    assert error.startswith("hmgym train: error: `out` must be a folder that no run has written to, got used with")
    status, _, error = script(*QUICK, *EPISODES, "--resume", "--out", "used", "--seed", "7")
    assert status == 2
    assert error.startswith("hmgym train: error: `seed` must be 0, as in the run that is resumed")
    assert [path.name for path in (tmp_path / "used" / "checkpoints").iterdir()] == ["64"]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Status and output of a command in this process."""
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_hyperparameters_are_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[TrainingPlan] = []

    def refuse(plan: TrainingPlan, progress: Any) -> None:
        plans.append(plan)
        raise ValueError("`plan` must not be trained, got one")

    monkeypatch.setattr("hmgym.commands.train.train", refuse)
    status, _, error = run(
        "train", *QUICK, "--algo", "shac", "--horizon", "4", "--trace", "0.5", "--betas", "0.8", "0.9", "--feedback",
        capsys=capsys,
    )  # fmt: skip
    assert (status, error) == (2, "hmgym train: error: `plan` must not be trained, got one\n")
    chosen = hyperparameters_of(plans[0])
    assert (chosen["horizon"], chosen["trace"], chosen["betas"], chosen["feedback"]) == (4, 0.5, (0.8, 0.9), True)
    assert chosen == {**hyperparameters_of(TrainingPlan(algo="shac")), **chosen}
    assert plans[0].out == plans[0].default_folder()
    for wrong, said in (
        (["--algo", "ppo", "--trace", "0.5"], "Unrecognized options"),
        (["--algo", "ppo", "--gamma", "2"], "`gamma` must lie in"),
        (["--algo", "dqn"], "invalid choice: 'dqn'"),
    ):
        status, _, error = run("train", *wrong, capsys=capsys)
        assert status == 2
        assert said in error
    assert len(plans) == 1


@pytest.mark.parametrize("algo", ["apg", "ppo"])
def test_a_checkpoint_is_evaluated_on_its_own_markets_or_on_others(
    algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"n_assets": 2, "n_investors": 6, "max_episode_steps": 5}
    plan = TrainingPlan(
        algo=algo, env_id="hmgym/Beliefs-v0", timesteps=64, num_envs=2, curve_episodes=0, env_kwargs=sizes, out=tmp_path
    )
    result = train(plan)
    options = ["--episodes", "4", "--screening-episodes", "0", "--out", str(tmp_path / "held" / "table.json")]
    status, table, _ = run("evaluate", str(tmp_path), *options, capsys=capsys)
    assert status == 0
    assert [line.split("  ")[0] for line in table.splitlines()[3:]] == [
        algo, "random", "no leverage", "without information",
    ]  # fmt: skip
    found = json.loads((tmp_path / "held" / "table.json").read_text())
    assert (found["algo"], found["env_id"], found["env_steps"], found["episodes"]) == (algo, plan.env_id, 64, 4)
    assert found["protocol"]["span"] == "held-out"
    expected = evaluate(result.policy, plan.env_id, episodes=4, env_kwargs={**sizes, "history": "held-out"})
    assert found["final"]["mean"] == pytest.approx(float(expected.returns.mean()), abs=1e-12)
    checkpoint = tmp_path / "checkpoints" / "64"
    held = ["--n-investors", "8", "--parameters", "interest_rate=0.002", "--seed", "7"]
    assert run("evaluate", str(checkpoint), *options, *held, capsys=capsys)[0] == 0
    other = json.loads((tmp_path / "held" / "table.json").read_text())
    assert other["evaluation_seeds_from"] == 7
    assert "interest_rate=0.002" in other["settings"]["config"]
    assert "n_investors=8" in other["settings"]["config"]
    assert other["final"]["mean"] != found["final"]["mean"]
    own = ["--parameters", "history=all"]
    assert run("evaluate", str(checkpoint), *options, *own, capsys=capsys)[0] == 0
    assert json.loads((tmp_path / "held" / "table.json").read_text())["protocol"]["span"] == "its own"


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run("--help", capsys=capsys)
    assert status == 0
    assert all(f"  {name}" in text for name in COMMANDS)
    for name in COMMANDS:
        status, text, _ = run(name, "--help", capsys=capsys)
        assert status == 0
        assert f"hmgym {name}" in text
    _, text, _ = run("train", "--algo", "apg", "--help", capsys=capsys)
    assert "--surprise-weight FLOAT" in text
    assert "--surprise {learned,posterior,none}" in text
    assert run("nope", capsys=capsys)[0] == 2


def test_help_starts_without_torch_and_every_public_name_is_found() -> None:
    source = "import sys, hmgym.cli\ntry: hmgym.cli.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for package in (hmgym, hmgym.envs):
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_baselines_are_evaluated_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--episodes", "4", "--n-assets", "2", "--n-investors", "6", "--parameters", "max_episode_steps=4"]
    status, table, _ = run(
        "evaluate", "no_leverage", "--env", "hmgym/Beliefs-v0", "--screening-episodes", "0", *common, capsys=capsys
    )
    assert status == 0
    assert [line.split("  ")[0] for line in table.splitlines()[3:]] == ["no_leverage", "random"]
    status, table, _ = run("evaluate", "best_constant", "--screening-episodes", "1", *common, capsys=capsys)
    assert status == 0
    assert table.splitlines()[3].startswith("best_constant")
    for name, more, said in (
        ("nothing", [], "`policy` must be the folder of a checkpoint"),
        ("random", ["--parameters", "five"], "`parameters` must be NAME=VALUE, got 'five'"),
        ("random", ["--parameters", "no_such_thing=5"], "`parameters` of hmgym/Beliefs-v0 must be some of "),
        ("random", ["--episodes", "1"], "`episodes` must be an integer >= 2, got 1"),
        ("random", ["--env", "nope"], "`env_id` must be a registered market"),
        ("best_constant", ["--screening-episodes", "0"], "`screening_episodes` must be >= 1"),
    ):
        status, _, error = run("evaluate", name, *more, capsys=capsys)
        assert status == 2
        assert error.startswith("hmgym evaluate: error: ")
        assert said in error


def test_a_parameter_says_what_the_action_of_a_pool_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = ["--env", "hmgym/Pool-v0", "--episodes", "4", "--screening-episodes"]
    status, table, _ = run(
        "evaluate", "rule_long", *pool, "1", "--parameters", "action=parameters", "per_asset=True", capsys=capsys
    )
    assert status == 0
    assert "best constant (memory " in table
    out = tmp_path / "run"
    status, table, _ = run(
        "train", *pool, "1", "--parameters", "action=parameters", "--timesteps", "600", "--num-envs", "8",
        "--curve-episodes", "0", "--out", str(out), capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert all(name in table for name in ("equal weights", "rule short", "rule long", "best constant (memory "))
    assert json.loads((out / "report.json").read_text())["settings"]["action"] == "parameters"
    status, _, error = run("evaluate", "rule_long", *pool, "0", "--parameters", "action=rule", capsys=capsys)
    assert (status, "`action` must be one of" in error) == (2, True)


def test_rules_and_lookups_stand_beside_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cma")
    quick = RuleBudget(
        candidates=2, screening_episodes=2, families=1, restarts=1, population=4, generations=1, search_episodes=2
    )
    monkeypatch.setattr("hmgym.agents.rule_search.RuleBudget", lambda: quick)
    common = ["--episodes", "4", "--n-assets", "2", "--n-investors", "6", "--parameters", "max_episode_steps=4"]
    written = tmp_path / "table.json"
    status, table, _ = run(
        "evaluate", "no_leverage", "--rules", "--lookup", "--screening-episodes", "1", *common, "--out", str(written),
        capsys=capsys,
    )  # fmt: skip
    assert status == 0
    found = json.loads(written.read_text())["baselines"]
    rows = ["random", "best_constant", "best_rule", "filter_rule", "history_lookup", "history_lookup_permuted"]
    assert list(found) == rows
    assert found["filter_rule"]["formula"] in table
    assert found["best_rule"]["chosen_on_seeds_from"] != json.loads(written.read_text())["evaluation_seeds_from"]


def test_simulate_writes_what_the_function_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run(
        "simulate", "crowd", "--months", "3", "--seed", "5", "--markets", "2", "--parameters", "n_assets=2",
        "n_investors=6", "price_mechanism=clearing", "--out", str(tmp_path / "out"), capsys=capsys,
    )  # fmt: skip
    assert status == 0
    expected = hmgym.simulate("crowd", months=3, seed=5, markets=2, n_assets=2, n_investors=6)
    assert (tmp_path / "out" / "series.csv").read_text() == expected.to_frame().to_csv()
    assert (tmp_path / "out" / "summary.txt").read_text() == f"{expected}\n"
    assert str(expected) in printed
    assert (tmp_path / "out" / "panels.png").stat().st_size > 5000
    for wrong, said in (
        (["--months", "0"], "`months` must be an integer >= 1"),
        (["--parameters", "wrong=1"], "`parameters` of crowd must be some of"),
        (["nowhere"], "`scenario` must be"),
    ):
        status, _, error = run("simulate", *wrong, "--out", str(tmp_path / "none"), capsys=capsys)
        assert status == 2
        assert said in error
    assert not (tmp_path / "none").exists()


def test_simulate_runs_a_market_maker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    status, printed, _ = run(
        "simulate", "market-making", "--seed", "3", "--markets", "2", "--parameters", "volatility=3", "steps=30",
        "max_inventory=4", "--out", str(out), capsys=capsys,
    )  # fmt: skip
    assert status == 0
    config = QuotingConfig(volatility=3.0, steps=30, max_inventory=4)
    best = quoting_baselines("hmgym/MarketMaking-v0", {"config": config})["hjb"].policy
    rows = [line.split(",") for line in (out / "series.csv").read_text().splitlines()]
    assert rows[0] == ["market", "step", "mid", "bid", "ask", "bought", "sold", "inventory", "profit"]
    assert len(rows) == 1 + 2 * 31
    for market in range(2):
        expected = record_episode(best, "hmgym/MarketMaking-v0", seed=3 + market, env_kwargs={"config": config})
        profit = [float(row[-1]) for row in rows[1:] if row[0] == str(market)]
        assert profit == expected.profit.tolist()
    summary = (out / "summary.txt").read_text()
    assert summary.startswith("Market making, simulated: volatility=3")
    assert summary in printed + "\n"
    assert (out / "panels.png").stat().st_size > 5000
    for wrong, said in (
        (["market-making", "--months", "12"], "`months` must be left out for market-making"),
        (["market-making", "--parameters", "wrong=1"], "`parameters` must be some of"),
        (["market-making", "--parameters", "volatility=-1"], "`volatility` must be >= 0, got -1"),
        (["market-making", "--strategy", "best"], "`strategy` must be among"),
        (["crowd", "--strategy", "hjb"], "`strategy` must be left out but for market-making, got 'hjb'"),
        (["nowhere"], "`scenario` must be one of ['active-passive', 'crowd', 'market-making'], got 'nowhere'"),
    ):
        status, _, error = run("simulate", *wrong, "--out", str(tmp_path / "none"), capsys=capsys)
        assert status == 2
        assert said in error
    assert not (tmp_path / "none").exists()


def test_backtest_writes_a_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    own = ["--parameters", "steps=20", "horizon=0.1", "max_inventory=4"]
    status, printed, _ = run(
        "backtest", "--strategies", "hjb", "constant", "inventory_aware", "--runs", "30", "--seed", "2", *own,
        "--out", str(out), capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert {path.name for path in out.iterdir()} == {
        "table.csv", "summary.txt", "profit.png", "inventory.png", "path.png", "distribution.png", "trade_off.png",
    }  # fmt: skip
    market = simulated_market({"steps": 20, "horizon": 0.1, "max_inventory": 4})
    names = ["hjb", "constant", "inventory-aware"]
    expected = backtest(market.choose(names), market.make, runs=30, seed=2)
    lines = (out / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["strategy", *names]
    assert [float(line.split(",")[2]) for line in lines[1:]] == [expected.results[name].mean for name in names]
    summary = (out / "summary.txt").read_text().rstrip("\n")
    assert printed.startswith(summary)
    assert "30 runs of 20 steps, seeds 2 to 31" in summary
    assert "exact reward" in summary
    assert "warning" not in summary
    for wrong, said in (
        (["--runs", "1"], "`runs` must be an integer >= 2, got 1"),
        (["--seed", "-1"], "`seed` must be an integer >= 0, got -1"),
        (["--strategies", "hjb", "best"], "`strategies` must be among ['hjb', 'avellaneda-stoikov', 'symmetric'"),
        (["--strategies", "inventory-aware", "inventory_aware"], "`strategies` must differ from each other"),
        (["--strategies"], "`strategies` must be at least one"),
        (["--parameters", "wrong=1"], "`parameters` must be some of"),
        (["--parameters", "steps=0"], "`steps` must be an integer >= 1, got 0"),
    ):
        status, _, error = run("backtest", *wrong, "--out", str(tmp_path / "none"), capsys=capsys)
        assert status == 2
        assert said in error
        assert error.count("\n") == 1
    status, _, error = run("backtest", *own, "--out", str(out / "table.csv"), capsys=capsys)
    assert (status, error.split(",")[0]) == (2, "hmgym backtest: error: `out` must be a folder")
    assert not (tmp_path / "none").exists()


def test_a_backtest_that_departs_from_its_law_says_so() -> None:
    market = simulated_market({"steps": 20, "horizon": 0.1})
    strategies = market.choose(["constant", "hjb"])
    result = backtest(strategies, market.make, runs=100)
    right = {name: law_of(strategy, market.env_kwargs["config"]) for name, strategy in strategies.items()}
    assert "warning" not in summary_of(market, result, right)
    wrong = {"constant": law_of(strategies["constant"], QuotingConfig(steps=20, horizon=0.1, arrival_rate=280.0))}
    said = summary_of(market, result, right | wrong)
    assert "warning: the mean profit of constant, " in said
    assert "warning: the mean profit of hjb" not in said


def test_best_response(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = run("best-response", "--policy", str(tmp_path / "none.pt"), capsys=capsys)
    assert status == 2
    assert "`policy` must be a file" in error


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    for module in [name for name in sys.modules if name.startswith("hmgym.commands")]:
        monkeypatch.delitem(sys.modules, module)
    status, _, error = run("evaluate", "random", capsys=capsys)
    assert status == 2
    assert error == 'hmgym evaluate: error: the command line needs tyro: pip install "hmgym[train]"\n'
