"""How many entries of each kernel stay, and which."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given as sampled
from hypothesis import settings
from hypothesis import strategies as st

from morph.compress.pruning import (
    Schedule,
    masks,
    one_shot,
    pruned,
)
from morph.compress.sparsities import DISTRIBUTIONS, NOfM, given, kernels_of, largest

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


def test_patterns_choose_kernels(params):
    found, state = after(params, one_shot(0.5), patterns=["a", "c/kern*"])
    assert masks(state).keys() == {"a/kernel", "c/kernel"}
    np.testing.assert_array_equal(found["b"]["kernel"], params["b"]["kernel"])


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsities_that_are_none(sparsity):
    with pytest.raises(ValueError, match=rf"sparsity is {sparsity}; it must be in \[0, 1\)"):
        Schedule(at=(0,), sparsities=(sparsity,))


def test_kernels_are_found_by_path(params):
    assert list(kernels_of(params)) == ["a/kernel", "b/kernel", "c/kernel"]
    assert list(kernels_of(params, ["b"])) == ["b/kernel"]
