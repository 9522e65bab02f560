"""Weight sharing: the least sum of squares there is, and every corner case."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.compress.cluster import clustered, share, shared
from morph.kernels.compressed import Pruned
from morph.vocabulary import CLUSTERINGS


def loss(weights, means, groups):
    return float(np.square(weights - means[groups]).sum())


def test_kmeans_is_exact():
    """Against all ways to cut nine sorted weights in three."""
    weights = np.random.default_rng(0).standard_normal(9)
    means, groups = clustered(weights, 3)
    ordered = np.sort(weights)
    parts = (
        [ordered[:a], ordered[a:b], ordered[b:]] for a, b in itertools.combinations(range(1, 9), 2)
    )
    least = min(sum(float(np.square(part - part.mean()).sum()) for part in cut) for cut in parts)
    assert loss(weights, means, groups) == pytest.approx(least)


def test_the_linear_start_ends_where_lloyd_stays_and_is_no_better():
    weights = np.random.default_rng(1).standard_normal(2000)
    exact, linear = (clustered(weights, 16, method=method) for method in CLUSTERINGS)
    assert loss(weights, *exact) <= loss(weights, *linear)
    means, groups = linear
    for k in np.unique(groups):
        assert means[k] == pytest.approx(weights[groups == k].mean())
    np.testing.assert_array_equal(np.abs(weights[:, None] - means).argmin(axis=1), groups)


def test_a_kernel_keeps_its_zeros():
    kernel = jax.random.normal(jax.random.key(0), (7, 5))
    kept = kernel > 0.3
    found = share(Pruned(kernel=kernel, kept=kept), 3)
    np.testing.assert_array_equal(found.dense() != 0, kept)
    np.testing.assert_array_equal(found.codes == 0, ~kept)
    assert np.all(np.diff(found.centroids) > 0)


@pytest.mark.parametrize(
    ("kernel", "centroids"),
    [
        (np.zeros((2, 3)), []),
        (np.full((2, 3), 4.0), [4.0]),
        (np.array([[1.0, 0.0, -2.0]]), [-2, 1]),
    ],
)
def test_fewer_values_than_clusters(kernel, centroids):
    found = share(jnp.asarray(kernel), 8)
    np.testing.assert_array_equal(found.centroids, np.float32(centroids))
    np.testing.assert_array_equal(found.dense(), np.float32(kernel))


def test_patterns_choose():
    params = {"a": {"kernel": jnp.arange(6.0), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones(3)}}
    found = shared(params, {"b/*": 0, "*/kernel": 2})
    assert found["a"]["kernel"].centroids.shape == (2,)
    assert found["a"]["bias"] is params["a"]["bias"]
    assert found["b"]["kernel"] is params["b"]["kernel"]
    with pytest.raises(ValueError, match=r"clusters='c/.' matches no layer"):
        shared(params, {"c/*": 3})
    with pytest.raises(ValueError, match=r"a/bias: weights .* hold NaN"):
        shared({"a": {"bias": jnp.asarray([jnp.nan])}}, {"*": 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count must be a whole number of at least 1"),
        ({"count": 2, "method": "best"}, "kmeans, linear"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        clustered(np.ones(3), **settings)
