"""Pruning: exact counts, zeros that stay, schedules, distributions, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.networks.mlp import MLP
from morph.compress.pruning import (
    Schedule,
    finished,
    gradual,
    iterative,
    kept_counts,
    masks,
    one_shot,
    pruned,
)
from morph.compress.sparsities import NOfM, given
from morph.compress.training import accuracy_of, train
from morph.kernels.compressed import (
    Pruned,
    joined,
    partition,
    unpacked,
)
from morph.network import linen_network
from morph.training.data import Batch

SHAPES = {"a": (7, 5), "b": (3, 3, 4, 11), "c": (11, 3)}


@pytest.fixture(scope="module")
def params():
    """Three kernels, of other scales, and a bias."""
    rng = np.random.default_rng(0)
    return {
        name: {
            "kernel": jnp.asarray((3.0**i * rng.normal(size=shape)).astype(np.float32)),
            "bias": jnp.asarray(rng.normal(size=shape[-1:]).astype(np.float32)),
        }
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def history(params, schedule, distribution="uniform", *, steps, gradient=0.0, tx=None, **settings):
    """Parameters and masks after each of some updates, all with one gradient."""
    tx = pruned(tx or optax.sgd(0.1), schedule, distribution, **settings)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)

    def update(carry, _):
        params, state = carry
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, masks(state))

    state = tx.init(params)
    _, found = jax.jit(lambda p: jax.lax.scan(update, (p, state), None, steps))(params)
    return jax.tree.map(np.asarray, found)


def after(params, schedule, distribution="uniform", **settings):
    """Parameters and state after the first update, without a gradient, and not compiled."""
    tx = pruned(optax.sgd(0.1), schedule, distribution, **settings)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return optax.apply_updates(params, updates), state


def test_n_of_m_chooses_anew():
    params = {"kernel": jnp.asarray([[3.0], [2.0], [1.0], [0.5]])}
    tx = pruned(optax.sgd(1.0), iterative([0.5, 0.5], every=3), NOfM(n=2, m=4))
    state = tx.init(params)
    for step in range(4):  # the second shrinks, the third would grow
        gradient = {"kernel": jnp.asarray([[0.0], [0.5], [-4.0], [0.0]])}
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        expected = [True, False, True, False] if step in (0, 3) else None
        if expected:
            assert (params["kernel"][:, 0] != 0).tolist() == expected


@pytest.mark.promotes
def test_zeros_stay_zero_and_the_rest_trains_as_alone(params):
    """Stale momentum, decay and dense gradients wake nothing."""
    own = {"gradient": 1.0, "tx": optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.05))}
    schedule = iterative([0.3, 0.6, 0.9], every=4, start=3)
    found, kept = history(params, schedule, "global", steps=14, **own)
    free, _ = history(params, one_shot(0.0), steps=14, **own)
    for path, mask in kept.items():
        name, _ = path.split("/")
        assert not found[name]["kernel"][~mask].any()
        assert not (mask[1:] & ~mask[:-1]).any()
        np.testing.assert_allclose(
            found[name]["kernel"][mask], free[name]["kernel"][mask], rtol=1e-5
        )
    total = sum(np.prod(shape) for shape in SHAPES.values())
    sparsities = np.repeat([0.0, 0.3, 0.6, 0.9], [3, 4, 4, 3])
    counts = sum(mask.reshape(14, -1).sum(1) for mask in kept.values())
    assert counts.tolist() == [round((1 - sparsity) * total) for sparsity in sparsities]


def test_the_optimizer_sees_no_gradient_of_what_is_pruned():
    params = {"kernel": jnp.asarray([[4.0, 1.0]])}
    tx = pruned(optax.clip_by_global_norm(1.0), one_shot(0.5))
    _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    updates, _ = tx.update({"kernel": jnp.asarray([[0.5, 100.0]])}, state, params)
    np.testing.assert_array_equal(updates["kernel"], [[0.5, -1.0]])


def test_gradual_is_the_papers_cubic():
    schedule = gradual(0.9, start=10, end=50, every=10, initial=0.1)
    assert schedule.at == (10, 20, 30, 40, 50)
    expected = [0.9 - 0.8 * (1 - t / 40) ** 3 for t in (0, 10, 20, 30, 40)]
    np.testing.assert_allclose(schedule.sparsities, expected)
    assert gradual(0.9, start=0, end=25, every=10).at == (0, 10, 20, 25)


@pytest.fixture(scope="module")
def case():
    """A network, its variables, and four clusters to tell apart."""
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=256)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.3 * generator.normal(size=(256, 3, 3, 1))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    return network, jax.jit(network.init)(jax.random.key(0), data.x[:1]), data


@pytest.mark.promotes
def test_a_network_is_pruned_while_it_trains_and_again(case):
    network, variables, data = case
    tx = pruned(optax.adam(1e-2), iterative([0.4, 0.6], every=20, start=10), "erk")
    trained, state = train(network, variables, data, tx, steps=100, batch_size=32)
    first = {**trained, "params": finished(trained["params"], state)}
    counts = kept_counts(first["params"])
    assert counts.keys() == {f"Dense_{i}/kernel" for i in range(3)}
    assert sum(kept for kept, _ in counts.values()) == pytest.approx(0.4 * 204, abs=1.5)
    assert accuracy_of(network, first, data) == accuracy_of(network, unpacked(first), data) > 0.9
    # The arrays of values are kernels, too: what is pruned already goes first.
    tx = pruned(optax.adam(1e-2), one_shot(0.8))
    again, state = train(network, first, data, tx, steps=60, batch_size=32)
    second = finished(again["params"], state)
    for name, value in first["params"].items():
        kept = second[name]["kernel"].kept
        assert isinstance(second[name]["kernel"], Pruned)
        assert int(kept.sum()) == round(0.2 * kept.size)
        assert not (kept & ~value["kernel"].kept).any()
    trained, fixed = partition(second)
    assert jax.tree.structure(joined(trained, fixed)) == jax.tree.structure(second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Schedule(at=(), sparsities=()), "at least one; got 0 steps and 0"),
        (lambda p: Schedule(at=(1, 1), sparsities=(0.1, 0.2)), r"must rise.*got \(1, 1\)"),
        (lambda p: iterative([0.5, 0.4], every=3), "sparsities must not fall"),
        (lambda p: gradual(0.5, start=5, end=5, every=1), "start < end and every > 0; got 5, 5"),
        (lambda p: NOfM(n=5, m=4), "N:M is 5:4; N must be at least 1 and at most M"),
        (lambda p: after(p, one_shot(0.3), NOfM(n=2, m=4)), "2:4 is a sparsity of 0.5, but .* 0.3"),
        (lambda p: after(p, one_shot(0.3), "ekr"), "no distribution 'ekr'; did you mean 'erk'"),
        (lambda p: after(p, one_shot(0.3), patterns=["d"]), "'d' matches no kernel.*a/kernel"),
        (lambda p: after(p, one_shot(0.3), patterns=[]), "no patterns; leave them out"),
        (lambda p: after({"b": jnp.ones(3)}, one_shot(0.3)), "no floating-point array of more"),
        (lambda p: after(p, one_shot(0.99)), "a/kernel of 35 weights would keep none .* 0.99"),
        (lambda p: given({"*": 0.0}), "'.' is to keep a share of 0.0"),
        (lambda p: after(p, one_shot(0.3), given({"a": 0.5})), "no share is given for b/kernel"),
        (
            lambda p: finished({"x": jnp.ones((2, 2))}, after(p, one_shot(0.3))[1]),
            "which the parameters lack",
        ),
        (lambda p: masks(optax.sgd(0.1).init(p)), "one pruned optimizer, found 0"),
        (lambda p: pruned(optax.sgd(1.0), one_shot(0.5)).update(p, None), "needs the parameters"),
    ],
)
def test_bad_input(params, make, message):
    with pytest.raises(ValueError, match=message):
        make(params)
