"""Pruning: exact counts, zeros that stay, schedules, distributions, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given as sampled
from hypothesis import settings
from hypothesis import strategies as st

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
from morph.compress.sparsities import DISTRIBUTIONS, NOfM, given, kernels_of, largest
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


def kept_of(params):
    return {name: int(jnp.sum(layer["kernel"] != 0)) for name, layer in params.items()}


@sampled(
    values=st.lists(st.integers(-2, 2), min_size=17, max_size=17),  # one compilation
    sparsity=st.floats(0, 0.99),
)
@settings(max_examples=15, deadline=None)
def test_counts_are_exact_also_with_ties(values, sparsity):
    count = round((1 - sparsity) * len(values))
    scores = np.abs(np.asarray(values, np.float32))
    chosen = np.asarray(largest(jnp.asarray(scores), count))
    expected = sorted(range(len(values)), key=lambda i: (-scores[i], i))[:count]
    np.testing.assert_array_equal(np.flatnonzero(chosen), sorted(expected))


def test_uniform_keeps_the_largest_of_each_layer(params):
    for sparsity in (0.0, 0.5, 0.9):
        found, _ = after(params, one_shot(sparsity))
        for name, shape in SHAPES.items():
            kernel = np.asarray(params[name]["kernel"])
            count = round((1 - sparsity) * np.prod(shape))
            order = np.argsort(-np.abs(kernel), axis=None)[:count]
            expected = np.zeros_like(kernel)
            expected.flat[order] = kernel.flat[order]
            np.testing.assert_array_equal(found[name]["kernel"], expected)
            np.testing.assert_array_equal(found[name]["bias"], params[name]["bias"])


def test_global_has_one_threshold(params):
    found, _ = after(params, one_shot(0.7), "global")
    flat = np.sort(np.abs(np.concatenate([p["kernel"].ravel() for p in params.values()])))
    threshold = flat[-round(0.3 * flat.size)]
    expected = {name: int((abs(p["kernel"]) >= threshold).sum()) for name, p in params.items()}
    assert kept_of(found) == expected


def test_deviation_is_a_quality_times_each_layers_standard_deviation(params):
    found, _ = after(params, one_shot(0.7), "deviation")
    kept = kept_of(found)
    assert sum(kept.values()) == round(0.3 * sum(p["kernel"].size for p in params.values()))
    lowest, highest = [], []
    for name, layer in params.items():
        kernel = np.asarray(layer["kernel"])
        scores = np.sort(np.abs(kernel), axis=None)[::-1] / kernel.std()
        lowest.append(scores[kept[name] - 1])
        highest.append(scores[kept[name]])
    assert max(highest) < min(lowest)  # one quality lies between


def test_erk_caps_small_layers_at_dense_and_meets_the_target():
    shapes = {"big": (200, 100), "window": (3, 3, 10, 20), "small": (5, 2)}
    found = DISTRIBUTIONS["erk"].densities(shapes, 0.8)
    assert found["small"] == 1.0
    sizes = {name: np.prod(shape) for name, shape in shapes.items()}
    kept = sum(found[name] * sizes[name] for name in shapes)
    np.testing.assert_allclose(kept, 0.2 * sum(sizes.values()))
    shares = [sum(shapes[name]) / sizes[name] for name in ("big", "window")]
    np.testing.assert_allclose(found["big"] / found["window"], shares[0] / shares[1])
    assert set(DISTRIBUTIONS["erk"].densities(shapes, 0.0).values()) == {1.0}


def test_given_shares_are_met_and_scaled():
    shapes = {"a/kernel": (10, 30), "b/kernel": (20, 5)}
    shares = given({"a": 0.1, "*": 0.5})
    assert shares.densities(shapes, 0.8) == pytest.approx({"a/kernel": 0.1, "b/kernel": 0.5})
    assert shares.densities(shapes, 0.4) == pytest.approx({"a/kernel": 0.1 * 14 / 3, "b/kernel": 1})


def test_n_of_every_m_along_the_inputs(params):
    found, _ = after(params, one_shot(0.5), NOfM(n=2, m=4))
    for name, layer in params.items():
        kernel = np.moveaxis(np.asarray(layer["kernel"]), -2, -1).reshape(-1, SHAPES[name][-2])
        own = np.moveaxis(np.asarray(found[name]["kernel"]), -2, -1).reshape(kernel.shape)
        for row, chosen in zip(kernel, own, strict=True):
            for start in range(0, row.size, 4):
                group = row[start : start + 4]
                strongest = sorted(np.argsort(-np.abs(group))[:2])
                assert np.flatnonzero(chosen[start : start + 4]).tolist() == strongest


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


def test_all_zero_layers_lose_as_many_as_asked():
    params = {"kernel": jnp.zeros((5, 7)), "other": jnp.ones((5, 7))}
    for name in DISTRIBUTIONS:
        _, state = after(params, one_shot(0.6), name)
        kept = {name: int(mask.sum()) for name, mask in masks(state).items()}
        assert sum(kept.values()) == 28
        assert kept["other"] == (28 if name in ("global", "deviation") else 14)


def test_half_precision(params):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    found, state = after(half, one_shot(0.5))
    for path, kept in masks(state).items():
        kernel = found[path.split("/")[0]]["kernel"]
        assert kernel.dtype == jnp.bfloat16
        np.testing.assert_array_equal(kernel == 0, ~kept)


@pytest.fixture(scope="module")
def case():
    """A network, its variables, and four clusters to tell apart."""
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=256)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.3 * generator.normal(size=(256, 3, 3, 1))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    return network, network.init(jax.random.key(0), data.x[:1]), data


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


def test_patterns_choose_kernels(params):
    found, state = after(params, one_shot(0.5), patterns=["a", "c/kern*"])
    assert masks(state).keys() == {"a/kernel", "c/kernel"}
    np.testing.assert_array_equal(found["b"]["kernel"], params["b"]["kernel"])


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsities_that_are_none(sparsity):
    with pytest.raises(ValueError, match=rf"sparsity is {sparsity}; it must be in \[0, 1\)"):
        one_shot(sparsity)


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


def test_kernels_are_found_by_path(params):
    assert list(kernels_of(params)) == ["a/kernel", "b/kernel", "c/kernel"]
    assert list(kernels_of(params, ["b"])) == ["b/kernel"]
