"""The main road on a tiny problem: budgets, exactness, files, resuming, bad input."""

import itertools
import json
import os
import signal
from contextlib import ExitStack
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from morph.budget import traces
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.listener import Progress, Silence
from morph.cycle.workdir import load_variables
from morph.errors import (
    BudgetError,
    ConfigError,
    Interrupted,
    TrainingDivergedError,
    WorkdirError,
)
from morph.training.data import Batch
from morph.training.metrics import Metric
from morph.training.task import Task

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
    budget=0.8,
    shrink_to=0.5,
    expand="scratch",
    final="scratch",
    seed_steps=30,
    shrink_steps=80,
    retrain_steps=20,
    batch_size=32,
    learning_rate=0.05,
    baselines="whole,uniform",
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
    assert 0.98 * CONFIG.shrink_to <= ratio <= CONFIG.shrink_to


def test_the_small_network_is_the_dense_one(finished):
    shrunk = outcomes_of(finished[1])["shrunk"]
    assert shrunk.logit_difference < 1e-5
    assert shrunk.same_predictions


def test_expansion_and_baseline_fill_the_budget_and_stay_under_it(finished):
    outcomes = outcomes_of(finished[1])
    limit = CONFIG.budget * outcomes["seed"].flops
    for name in ("expanded and retrained", "uniform"):
        assert 0.95 * limit <= outcomes[name].flops <= limit
    whole = outcomes["seed, trained as long"]
    assert whole.widths == outcomes["seed"].widths
    assert (
        whole.steps == outcomes["uniform"].steps == outcomes["expanded and retrained"].steps == 20
    )
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
        "whole",
        "uniform",
        "seed",
        "shrink",
        "retrain",
    ]
    costs = [r["cost_ratio"] for r in records if r["phase"] == "shrink"]
    assert costs[0] == 1.0
    assert costs[-1] <= CONFIG.shrink_to * 1.2


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


def test_a_run_that_is_stopped_twice_resumes_to_the_same_result(tmp_path, data, finished):
    for phase, step in (("shrink", 40), ("retrain", 10)):
        with pytest.raises(Interrupted, match=rf"stopped at step {step} of phase '{phase}'"):
            make(tmp_path, data, listener=StopAt(phase, step)).run()
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
    other = replace(CONFIG, budget=0.7)
    with pytest.raises(WorkdirError, match=r"budget: 0\.8 there, 0\.7 asked for"):
        make(finished[0], data, other).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shrink_to": 1e-4}, r"cannot meet a budget of .* still costs"),
        ({"budget": 0.0}, "a budget must be above zero, found 0.0"),
        ({"shrink_to": 0.9}, r"shrink_to \(0.9\) must be at most the budget \(0.8\)"),
        ({"budget": 1.1, "shrink_to": None}, "at most its own cost"),
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
    def explode(rate, config):
        del config
        return optax.sgd(lambda step: rate(step) * 1e30)

    with pytest.raises(TrainingDivergedError, match=r"at step 10 of phase 'seed'"):
        make(tmp_path, data, replace(CONFIG, baselines=""), optimizer=explode).run()


@pytest.fixture
def traced(monkeypatch):
    """The variables of every network that is traced, in order."""
    seen, trace = [], traces.trace_channels

    def noting(fn, variables, x):
        seen.append(variables)
        return trace(fn, variables, x)

    monkeypatch.setattr(traces, "trace_channels", noting)
    return seen


def test_two_cycles_chain_trace_each_network_once_and_lasso_works(tmp_path, data, traced):
    config = replace(
        CONFIG,
        cycles=2,
        penalty="group_lasso",
        target="size",
        baselines="",
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
    assert len(traced) == 4  # the seed, shrunk, widened, shrunk again
    seed = result.outcomes[0].parameters
    assert result.outcomes[3].parameters <= 0.5 * seed
    assert result.outcomes[4].parameters <= 0.8 * seed
    x = jnp.ones((2, 5, 5, 1))
    assert result.network.predict(result.variables, x).shape == (2, CLASSES)
    graph = reg.trace_channels(result.network.predict, result.variables, x)
    assert reg.model_size(graph)() == result.outcomes[4].parameters


RICH = replace(
    CONFIG,
    expand="warm",
    final="finetune",
    seed_steps=20,
    shrink_steps=40,
    retrain_steps=10,
    baselines="",
    optimizer="adamw",
    learning_rate=0.01,
    shrink_learning_rate=0.01,
    clip_norm=1.0,
    ema_decay=0.9,
    precision="bfloat16",
    label_smoothing=0.1,
    augment="crop",
    distill=0.5,
    metrics="log_likelihood,accuracy",
)


@pytest.fixture(scope="module")
def rich(tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("rich")
    return workdir, make(workdir, data, RICH).run()


def test_everything_at_once_learns_and_keeps_the_function(rich):
    outcomes = outcomes_of(rich[1])
    assert [outcome.name for outcome in rich[1].outcomes] == [
        "seed",
        "shrunk",
        "expanded and fine-tuned",
    ]
    assert [outcome.steps for outcome in rich[1].outcomes] == [20, 60, 70]
    seed, shrunk, final = outcomes.values()
    assert shrunk.flops <= 0.5 * seed.flops
    assert shrunk.logit_difference < 1e-5  # of the averaged weights
    assert final.flops <= 0.8 * seed.flops
    # Widening keeps the function, and a few steps do not lose it.
    assert final.metrics["log_likelihood"] > shrunk.metrics["log_likelihood"] - 0.1
    assert set(final.metrics) == {"log_likelihood", "accuracy"}
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(rich[1].variables))


def test_everything_at_once_resumes_to_the_same_result(tmp_path, data, rich):
    with pytest.raises(Interrupted):
        make(tmp_path, data, RICH, listener=StopAt("shrink", 20)).run()
    again = make(tmp_path, data, RICH).run()
    assert again.outcomes == rich[1].outcomes
    for one, other in zip(
        jax.tree.leaves(again.variables), jax.tree.leaves(rich[1].variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)


class Shuffled:
    """A pipeline that draws from a set."""

    def __init__(self, data):
        self.data = data

    def batches(self, start):
        for step in itertools.count(start):
            index = np.random.default_rng(step).integers(0, len(self.data.x), 32)
            yield Batch(self.data.x[index], self.data.y[index])


def test_a_pipeline_trains_a_network_that_is_not_expanded(tmp_path, data):
    config = replace(
        CONFIG,
        budget=0.5,
        shrink_to=None,
        final="finetune",
        seed_steps=20,
        retrain_steps=7,
    )
    train, test = data
    result = make(tmp_path, (Shuffled(train), test), config).run()
    outcomes = outcomes_of(result)
    assert result.architecture.widths == result.shrunk.widths == outcomes["shrunk"].widths
    assert outcomes["fine-tuned"].flops == outcomes["shrunk"].flops
    assert outcomes["fine-tuned"].steps == outcomes["uniform"].steps == 107
    assert outcomes["fine-tuned"].accuracy > 0.8


class Given:
    """A metric that has one value per network, whose logits are not seen again."""

    def __init__(self, values):
        self.values, self.known = values, []

    def __call__(self, logits):
        if not any(np.array_equal(logits, known) for known in self.known):
            self.known.append(logits)
        return self.values[min(len(self.known), len(self.values)) - 1]


def test_cycles_that_bring_nothing_are_not_repeated(tmp_path, data):
    config = replace(
        CONFIG,
        cycles=4,
        patience=1,
        expand="warm",
        baselines="",
        seed_steps=5,
        shrink_steps=40,
        retrain_steps=3,
    )
    # Seed, shrunk and final networks in turn.
    given = Metric(measure=lambda logits, batch: logits, compute=Given([0, 0, 2, 0, 1]))
    result = make(tmp_path, data, config, task=Task(metrics={"given": given})).run()
    assert [outcome.name for outcome in result.outcomes][2::2] == [
        "expanded and fine-tuned",
        "expanded and fine-tuned 2",
    ]
    assert result.architecture.widths == result.outcomes[2].widths
    assert result.shrunk.widths == result.outcomes[1].widths
    report = morph.Architecture.load(tmp_path / "architecture.json").report
    assert (report["best_cycle"], report["stopped_early"]) == (1, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamm"}, "optimizer: there is no 'adamm'; did you mean 'adam'"),
        ({"metrics": "accuracy,top5"}, "metrics: there is no 'top5'; did you mean 'top5_accuracy'"),
        ({"metrics": " "}, "metrics: at least one of accuracy"),
        ({"augment": "flipp"}, "augment: there is no 'flipp'; did you mean 'flip'"),
        ({"precision": "float16"}, "precision: there is no 'float16'"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), found 1.0"),
        ({"distill": 1.1}, r"distill must be in \[0, 1\], found 1.1"),
        ({"distill": 0.5, "distill_temperature": 0.0}, "distill_temperature must be above 0"),
        (
            {"loss": "mean_squared_error", "label_smoothing": 0.1},
            "only the losses cross_entropy and masked",
        ),
        ({"shrink_to": None, "cycles": 2}, "cycles is 2, but the first already ends"),
    ],
)
def test_settings_of_the_training_are_checked(tmp_path, data, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "new", data, replace(CONFIG, **changes)).run()
    assert not (tmp_path / "new").exists()


def test_a_run_from_python_leaves_what_the_command_leaves(finished):
    workdir, result = finished
    told = json.loads((workdir / "results.json").read_text())
    assert [one["name"] for one in told["outcomes"]] == [one.name for one in result.outcomes]
    assert told["config"]["shrink_steps"] == CONFIG.shrink_steps
    assert told["command"].startswith("python ")


def test_progress_is_told_unless_somebody_listens(tmp_path, data):
    with ExitStack() as held:
        heard = make(tmp_path, data)._heard(held)
        assert isinstance(heard, Progress)
        assert heard.last.endswith(f"morph report {tmp_path}")
        assert isinstance(make(tmp_path, data, progress=False)._heard(held), Silence)
        listener = Silence()
        assert make(tmp_path, data, listener=listener)._heard(held) is listener
