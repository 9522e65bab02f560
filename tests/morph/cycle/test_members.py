"""Runs of a sweep, side by side in one array."""

import jax
import numpy as np
import optax
import pytest

import regularizers as reg
from morph.cycle.members import Pulling, Trained, kept, stacked, unstacked


def test_what_is_stacked_comes_apart_again(variables, same):
    trees = [jax.tree.map(lambda leaf, n=n: leaf + n, variables) for n in range(3)]
    together = stacked(trees)
    assert jax.tree.leaves(together)[0].shape[0] == 3
    for one, other in zip(trees, unstacked(together, 3), strict=True):
        same(one, other)


def test_the_channels_of_the_seed_that_are_kept(run_of):
    narrow = run_of().seed.with_parents({"Dense_0": (0, 2, 5)})
    assert np.flatnonzero(kept(narrow)["Dense_0"]).tolist() == [0, 2, 5]


def test_strengths_of_all_runs_are_those_of_each(traces, variables):
    regularizer = reg.NetworkRegularizer(traces.graph, reg.flops(traces.graph))
    pulling = Pulling.of(regularizer, variables, optax.sgd(0.1))
    trees = [jax.tree.map(lambda leaf, n=n: n * leaf, variables["params"]) for n in (1.0, 2.0)]
    found = pulling.strengths_of_all(stacked(trees))["Dense_0"]
    each = [regularizer.strengths(tree)["Dense_0"] for tree in trees]
    np.testing.assert_allclose(found, np.stack(each), rtol=1e-6)


@pytest.mark.parametrize(("metrics", "accuracy"), [({"accuracy": 0.5}, 0.5), ({"nats": 1.0}, None)])
def test_accuracy_is_there_if_it_was_asked_for(run_of, variables, metrics, accuracy):
    one = Trained(architecture=run_of().seed, variables=variables, metrics=metrics, records=())
    assert one.accuracy == accuracy
