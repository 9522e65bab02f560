"""The main road on a tiny problem: budgets, exactness, files, resuming, bad input."""

import json
import os
import signal
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from morph.checkpoint import Interrupted, WorkdirError, load_variables
from morph.config import CycleConfig
from morph.cycle import Cycle
from morph.expand import BudgetError
from morph.train import Batch, TrainingDivergedError

CLASSES = 3


class Net(nn.Module):
    """A dense net with batch norm and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], -1)
        for width in (64, 48):
            x = nn.Dense(width, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(CLASSES)(nn.Dropout(0.1, deterministic=not train)(x))


CONFIG = CycleConfig(
    budget=0.5,
    expand_budget=0.8,
    seed_steps=30,
    shrink_steps=80,
    retrain_steps=20,
    batch_size=32,
    learning_rate=0.05,
    baseline=True,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 310).astype(np.int32)
    x = rng.normal(size=(310, 5, 5, 1)).astype(np.float32)
    x[np.arange(310), y, y, 0] += 3.0
    return Batch(x[:200], y[:200]), Batch(x[200:], y[200:])


def make(workdir, data, config=CONFIG, **changes):
    train, test = data
    network = morph.linen_network(Net())
    return Cycle(network=network, train=train, test=test, config=config, workdir=workdir, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, make(workdir, data).run()


def outcomes_of(result):
    return {outcome.name: outcome for outcome in result.outcomes}


def test_shrinking_lands_within_two_percent_under_the_budget(finished):
    outcomes = outcomes_of(finished[1])
    ratio = outcomes["shrunk"].flops / outcomes["seed"].flops
    assert 0.98 * CONFIG.budget <= ratio <= CONFIG.budget


def test_the_small_network_is_the_dense_one(finished):
    shrunk = outcomes_of(finished[1])["shrunk"]
    assert shrunk.logit_difference < 1e-5
    assert shrunk.same_predictions


def test_expansion_and_baseline_fill_the_expand_budget_and_stay_under_it(finished):
    outcomes = outcomes_of(finished[1])
    limit = CONFIG.expand_budget * outcomes["seed"].flops
    for name in ("expanded and retrained", "uniform"):
        assert 0.95 * limit <= outcomes[name].flops <= limit
    assert outcomes["uniform"].steps == outcomes["expanded and retrained"].steps == 20
    assert outcomes["shrunk"].steps == 110


def test_files_rebuild_the_networks_without_the_run(finished, data):
    workdir, result = finished
    test = data[1]
    for name, stem in (("architecture", "variables"), ("shrunk", "shrunk_variables")):
        architecture = morph.Architecture.load(workdir / f"{name}.json")
        variables = load_variables(workdir / stem)
        small = morph.compact(Net().apply, architecture)
        accuracy = float((small(variables, test.x).argmax(-1) == test.y).mean())
        key = "expanded and retrained" if name == "architecture" else "shrunk"
        assert accuracy == pytest.approx(outcomes_of(result)[key].accuracy)
    assert architecture.report["config"]["budget"] == CONFIG.budget


def test_records_tell_the_whole_run(finished):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["phase"] for r in records if r["step"] == 10] == [
        "uniform",
        "seed",
        "shrink",
        "retrain",
    ]
    costs = [r["cost_ratio"] for r in records if r["phase"] == "shrink"]
    assert costs[0] == 1.0
    assert costs[-1] <= CONFIG.budget * 1.2


class StopAt:
    """A listener that asks the process to stop at one step of one phase."""

    def __init__(self, phase, step):
        self.at, self.now = (phase, step), ""

    def seed(self, widths):
        pass

    def phase(self, name, total_steps):
        self.now = name

    def update(self, step, **metrics):
        if (self.now, step) == self.at and "loss" in metrics:  # once
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("at", [("shrink", 40), ("retrain", 10)])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path, data, finished, at):
    with pytest.raises(Interrupted, match=rf"stopped at step {at[1]} of phase '{at[0]}'"):
        make(tmp_path, data, listener=StopAt(*at)).run()
    again = make(tmp_path, data).run()
    straight = finished[1]
    assert again.outcomes == straight.outcomes
    assert again.architecture == straight.architecture
    for one, other in zip(
        jax.tree.leaves(again.variables), jax.tree.leaves(straight.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    mine, theirs = (p / "metrics.jsonl" for p in (tmp_path, finished[0]))
    assert mine.read_text() == theirs.read_text()


def test_a_finished_run_only_tells_its_result(finished, data):
    workdir, result = finished
    again = make(workdir, data, listener=StopAt("seed", 10)).run()
    assert again.outcomes == result.outcomes


def test_another_configuration_is_refused(finished, data):
    other = replace(CONFIG, budget=0.3)
    with pytest.raises(WorkdirError, match=r"budget: 0\.5 there, 0\.3 asked for"):
        make(finished[0], data, other).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 1e-4}, r"cannot meet a budget of .* still costs"),
        ({"budget": 0.0}, "above 0 and at most 1; found 0.0"),
        ({"budget": 0.9}, r"expand_budget \(0.8\) must be at least the budget \(0.9\)"),
    ],
)
def test_a_budget_out_of_reach_is_refused_before_any_training(tmp_path, data, changes, message):
    with pytest.raises(BudgetError, match=message):
        make(tmp_path / "new", data, replace(CONFIG, **changes)).run()
    assert not (tmp_path / "new").exists()


def test_settings_without_sense_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match="shrink_steps must be at least 1, found 0"):
        make(tmp_path, data, replace(CONFIG, shrink_steps=0)).run()
    with pytest.raises(ValueError, match="cycles must be at least 1"):
        make(tmp_path, data, replace(CONFIG, cycles=0)).run()


def test_a_diverging_loss_ends_the_run_and_says_where(tmp_path, data):
    def explode(peak, steps, config):
        del steps, config
        return optax.sgd(peak * 1e30)

    with pytest.raises(TrainingDivergedError, match=r"at step 10 of phase 'seed'"):
        make(tmp_path, data, replace(CONFIG, baseline=False), optimizer=explode).run()


def test_two_cycles_chain_and_lasso_works(tmp_path, data):
    config = replace(
        CONFIG,
        cycles=2,
        penalty="group_lasso",
        target="size",
        baseline=False,
        seed_steps=10,
        shrink_steps=40,
        retrain_steps=10,
    )
    result = make(tmp_path, data, config).run()
    assert [outcome.name for outcome in result.outcomes] == [
        "seed",
        "shrunk",
        "expanded and retrained",
        "shrunk 2",
        "expanded and retrained 2",
    ]
    seed = result.outcomes[0].parameters
    assert result.outcomes[3].parameters <= 0.5 * seed
    assert result.outcomes[4].parameters <= 0.8 * seed
    x = jnp.ones((2, 5, 5, 1))
    assert result.network.predict(result.variables, x).shape == (2, CLASSES)
    graph = reg.trace_channels(result.network.predict, result.variables, x)
    assert reg.model_size(graph)() == result.outcomes[4].parameters
