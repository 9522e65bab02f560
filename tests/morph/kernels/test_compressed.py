"""Compressed kernels: any function runs with them, and what they train gets its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.kernels.compressed import (
    Pruned,
    Shared,
    joined,
    partition,
)


class Net(nn.Module):
    """A convolution and two dense layers."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        x = nn.relu(nn.Dense(7)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3)(x)


@pytest.fixture(scope="module")
def case():
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 2))
    variables = jax.jit(Net().init)(jax.random.key(0), x)
    return Net().apply, variables, x


def compressed(variables):
    """A pruned convolution and a dense layer of two shared values; and their dense kernels."""
    params = {name: dict(layer) for name, layer in variables["params"].items()}
    conv, dense = params["Conv_0"]["kernel"], params["Dense_0"]["kernel"]
    params["Conv_0"]["kernel"] = Pruned(kernel=conv, kept=conv > 0)
    codes = np.where(dense > 0.1, 1, np.where(dense < -0.1, 2, 0)).astype(np.uint8)
    centroids = jnp.asarray([0.3, -0.2])
    params["Dense_0"]["kernel"] = Shared(centroids=centroids, codes=jnp.asarray(codes))
    arrays = {name: dict(layer) for name, layer in variables["params"].items()}
    arrays["Conv_0"]["kernel"] = jnp.where(conv > 0, conv, 0)
    arrays["Dense_0"]["kernel"] = jnp.asarray(np.array([0, 0.3, -0.2], np.float32)[codes])
    return {"params": params}, {"params": arrays}


def test_a_function_runs_with_compressed_kernels(case):
    apply, variables, x = case
    values, arrays = compressed(variables)
    np.testing.assert_array_equal(jax.jit(morph.tensorized(apply))(values, x), apply(arrays, x))


def test_they_compose_with_compact(case):
    apply, variables, x = case
    graph = reg.trace_channels(apply, variables, x)
    alive = {name: np.arange(group.width) > 0 for name, group in graph.groups.items()}
    arch = morph.shrink(graph, {name: kept for name, kept in alive.items() if name != "output"})
    values, arrays = compressed(arch.take(variables))
    small = morph.compact(apply, arch)
    assert arch.widths != graph.widths
    np.testing.assert_array_equal(small(values, x), small(arrays, x))


def test_cores_may_be_compressed(case):
    apply, variables, x = case
    graph = reg.trace_channels(apply, variables, x)
    plan = morph.tensorize_plan(graph, variables, rank=3)
    cores = plan.factorize(variables)
    values = jax.tree.map(lambda leaf: Pruned(kernel=leaf, kept=jnp.abs(leaf) > 0.05), cores)
    arrays = jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) > 0.05, leaf, 0), cores)
    fn = morph.tensorized(apply)
    np.testing.assert_array_equal(fn(values, x), fn(arrays, x))


def test_gradients_reach_what_is_trained(case):
    apply, variables, x = case
    values, arrays = compressed(variables)
    fn = morph.tensorized(apply)
    trained, fixed = partition(values)
    own = jax.grad(lambda t: jnp.sum(jnp.square(fn(joined(t, fixed), x))))(trained)["params"]
    full = jax.grad(lambda v: jnp.sum(jnp.square(apply(v, x))))(arrays)["params"]
    codes = np.asarray(values["params"]["Dense_0"]["kernel"].codes)
    sums = [np.sum(full["Dense_0"]["kernel"], where=codes == k) for k in (1, 2)]
    np.testing.assert_allclose(own["Dense_0"]["kernel"].centroids, sums, rtol=1e-4)
    kept = values["params"]["Conv_0"]["kernel"].kept
    expected = jnp.where(kept, full["Conv_0"]["kernel"], 0)
    np.testing.assert_allclose(own["Conv_0"]["kernel"].kernel, expected, rtol=1e-4, atol=1e-6)


def test_partition_keeps_integers_out_and_joins_again(case):
    values, _ = compressed(case[1])
    trained, fixed = partition(values)
    assert {leaf.dtype.kind for leaf in jax.tree.leaves(trained)} == {"f"}
    assert {leaf.dtype.kind for leaf in jax.tree.leaves(fixed)} == {"b", "u"}
    again = joined(trained, fixed)
    assert jax.tree.structure(again) == jax.tree.structure(values)
    jax.tree.map(np.testing.assert_array_equal, again, values)
