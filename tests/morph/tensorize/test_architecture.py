"""A factorized architecture: JSON and back, rebuilt, priced, trained in a run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_run import CONFIG, make

import morph
import regularizers as reg
from morph.cycle.listener import Silence
from morph.cycle.workdir import load_variables
from morph.errors import ConfigError, Interrupted
from morph.kernels.factorized import is_factorized


class Net(nn.Module):
    """Two convolutions and two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(12, (3, 3))(x))
        x = nn.relu(nn.Conv(16, (3, 3))(x)).mean((1, 2))
        x = nn.relu(nn.Dense(40)(x))
        return nn.Dense(5)(x)


@pytest.fixture(scope="module")
def learned():
    """Shrunk by a third, then factorized."""
    model, x = Net(), jax.random.normal(jax.random.key(1), (3, 5, 7, 8))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    alive = {name: np.arange(width) % 3 != 1 for name, width in graph.widths.items()}
    arch = morph.shrink(graph, alive)
    small, fn = arch.take(variables), morph.compact(model.apply, arch)
    plan = morph.tensorize_plan(
        reg.trace_channels(fn, small, x), small, kind={"Dense_0": "tt", "*": "auto"}, rank=3
    )
    return model, variables, x, arch, arch.tensorized(plan.kernels), plan.factorize(small)


def leaves(tree):
    return jax.tree.leaves(tree, is_leaf=is_factorized)


def test_compact_contracts_the_cores(learned):
    model, _, x, _, factorized, cores = learned
    dense = jax.tree.map(
        lambda leaf: leaf.dense() if is_factorized(leaf) else leaf, cores, is_leaf=is_factorized
    )
    arch = learned[3]
    found = jax.jit(morph.compact(model.apply, factorized))(cores, x)
    np.testing.assert_allclose(found, morph.compact(model.apply, arch)(dense, x), atol=1e-5)


def test_taking_decomposes(learned):
    _, variables, _, _, factorized, cores = learned
    for found, expected in zip(leaves(factorized.take(variables)), leaves(cores), strict=True):
        assert found.shape == expected.shape
        if is_factorized(found):
            np.testing.assert_allclose(found.dense(), expected.dense(), atol=1e-5)


def test_through_json_to_fresh_variables(learned, tmp_path):
    model, variables, x, _, factorized, cores = learned
    factorized.save(tmp_path / "architecture.json")
    loaded = morph.Architecture.load(tmp_path / "architecture.json")
    assert loaded == factorized
    fresh = morph.init(model.init, loaded, jax.random.key(3), x)
    assert jax.tree.structure(fresh) == jax.tree.structure(cores)
    assert [leaf.shape for leaf in leaves(fresh)] == [leaf.shape for leaf in leaves(cores)]
    assert jax.tree.structure(loaded.abstract(variables)) == jax.tree.structure(cores)
    assert morph.compact(model.apply, loaded)(fresh, x).shape == (3, 5)
    kernel = fresh["params"]["Conv_1"]["kernel"].dense()
    assert 0.5 < float(kernel.std()) * (9 * 8) ** 0.5 < 2.0


def test_the_totals_are_those_of_the_cores(learned):
    model, _, x, _, factorized, cores = learned
    totals = factorized.to_json()["totals"]
    assert totals["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(cores))
    graph = reg.trace_channels(morph.compact(model.apply, factorized), cores, x)
    assert totals["flops"] == pytest.approx(reg.flops(graph)())
    kinds = {layer["path"]: layer["factorization"] for layer in factorized.to_json()["layers"]}
    assert kinds["Dense_0"]["kind"] == "tt"
    assert kinds["Conv_0"] == {"kind": "tucker2", "ranks": {"r_in": 3, "r_out": 3}}
    assert "tucker2 (r_in 3, r_out 3)" in str(factorized)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda k: k.update(kind="tr"), "'tr' is not one of"),
        (lambda k: k["sizes"].update(r_in=4), "says shape, ranks and parameters"),
        (lambda k: k["sizes"].pop("r_in"), "does not give every label a size"),
        (lambda k: k["axes"].append(["i0"]), "axes of no core's label, or two of one"),
        (lambda k: k.update(roles="io"), "has 4 axes, but roles 'io'"),
        (lambda k: k.update(error=float("nan")), "a number that is not finite"),
    ],
)
def test_broken_records_are_refused(learned, damage, message):
    data = json.loads(json.dumps(learned[4].to_json()))
    damage(data["factorized"]["params/Conv_0/kernel"])
    with pytest.raises(morph.ArchitectureError, match=message):
        morph.Architecture.from_json(data)


def test_records_of_other_networks_are_refused(learned):
    _, _, _, arch, factorized, _ = learned
    kernels = dict(factorized.factorized)
    kernels["params/Conv_9/kernel"] = kernels["params/Conv_0/kernel"]
    with pytest.raises(morph.ArchitectureError, match="has no 'params/Conv_9/kernel'"):
        arch.tensorized(kernels)
    seed = arch.with_parents({name: tuple(range(n)) for name, n in arch.seed_widths.items()})
    with pytest.raises(morph.ArchitectureError, match="but its cores make"):
        seed.tensorized(factorized.factorized)
    with pytest.raises(morph.ArchitectureError, match="shrink and expand before tensorizing"):
        factorized.then(arch)


class Stopping(Silence):
    """Asks a run to stop at a step of a phase."""

    def __init__(self, phase, step):
        self.at, self.now = (phase, step), ""

    def phase(self, name, total_steps):
        self.now = name

    def update(self, step, **metrics):
        if (self.now, step) == self.at and "loss" in metrics:
            os.kill(os.getpid(), signal.SIGTERM)


def tensorizing(workdir, **settings):
    cycle = make(workdir)
    settings = {"tensorize": "svd", "tensorize_budget": 0.6, "tensorize_steps": 20, **settings}
    cycle.config = dataclasses.replace(CONFIG, **settings)
    return cycle


@pytest.mark.promotes
def test_a_run_ends_factorized_also_when_stopped_meanwhile(tmp_path):
    straight = tensorizing(tmp_path / "straight").run()
    names = [outcome.name for outcome in straight.outcomes]
    assert names[-2:] == ["tensorized", "tensorized and fine-tuned"]
    seed, *_, tensorized, tuned = straight.outcomes
    assert 0.5 * seed.cost < tensorized.cost == tuned.cost <= 0.6 * seed.cost
    assert tuned.metrics["accuracy"] > 0.8
    assert set(straight.architecture.factorized) == {"params/Dense_0/kernel"}
    stopped = tensorizing(tmp_path / "stopped")
    stopped.listener = Stopping("tensorize", 10)
    with pytest.raises(Interrupted, match="stopped at step 10 of phase 'tensorize'"):
        stopped.run()
    again = tensorizing(tmp_path / "stopped").run()
    assert again.architecture == straight.architecture
    jax.tree.map(np.testing.assert_array_equal, again.variables, straight.variables)
    kept = load_variables(tmp_path / "straight" / "variables", straight.variables)
    jax.tree.map(np.testing.assert_array_equal, kept, straight.variables)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensorize": "svt"}, "tensorize: there is no 'svt'"),
        ({"tensorize": "Dense_0"}, "tensorize: there is no 'Dense_0'"),
        ({"patience": 1}, "which cycle is the best is known only after the last"),
        ({"tensorize_budget": 2.0}, r"tensorize_budget \(2.0\) must be below the seed's cost"),
        ({"tensorize_steps": 0}, "tensorize_steps must be at least 1, found 0"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises((ConfigError, morph.BudgetError), match=message):
        tensorizing(tmp_path, **settings).run()
