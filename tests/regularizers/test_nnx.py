import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import morph
import regularizers as reg


class LinenNet(nn.Module):
    """conv-BN-relu, flatten, dense-relu, dropout, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Dense(7, name="hidden")(x.reshape((x.shape[0], -1))))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x)


class NNXNet(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 6, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.hidden = nnx.Linear(4 * 5 * 6, 7, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.relu(self.hidden(x.reshape((x.shape[0], -1))))
        return self.head(self.dropout(x))


X = jax.random.normal(jax.random.key(1), (3, 4, 5, 2))


@pytest.fixture(scope="module")
def pair():
    """The Linen function and the NNX function, and variables that fit both."""
    model = LinenNet()
    variables = jax.jit(model.init)(jax.random.key(0), X)
    fn, state = reg.nnx_function(NNXNet(nnx.Rngs(0)))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, variables)
    return model.apply, fn, variables


def test_variables_have_the_layout_of_linen(pair):
    _, fn, variables = pair
    _, state = reg.nnx_function(NNXNet(nnx.Rngs(0)))
    assert jax.tree.structure(state) == jax.tree.structure(variables)
    assert set(state) == {"params", "batch_stats"}  # random streams are no variables
    del fn


def test_equivalent_networks_have_the_same_groups_and_costs(pair):
    linen, fn, variables = pair
    ours, theirs = (reg.trace_channels(f, variables, X) for f in (fn, linen))
    assert ours.groups == theirs.groups
    assert list(ours.groups) == ["conv", "hidden"]
    assert ours.variables == theirs.variables
    assert list(reg.flops(ours).table()) == list(reg.flops(theirs).table())
    assert reg.model_size(ours)() == reg.model_size(theirs)()


def test_equivalent_networks_compute_the_same(pair):
    linen, fn, variables = pair
    np.testing.assert_allclose(fn(variables, X), linen(variables, X), rtol=1e-6)


def test_compact_function_equals_the_masked_one(pair):
    _, fn, variables = pair
    graph = reg.trace_channels(fn, variables, X)
    alive = {"conv": np.arange(6) % 3 > 0, "hidden": np.arange(7) % 2 == 0}
    masked = graph.mask(variables, alive)
    arch = morph.shrink(graph, alive)
    small = morph.compact(fn, arch)(arch.take(masked), X)
    np.testing.assert_allclose(small, fn(masked, X), rtol=1e-5, atol=1e-6)


def test_train_mode_updates_the_statistics_that_are_mutable(pair):
    linen, fn, variables = pair
    key = jax.random.key(2)
    output, updated = fn(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    assert set(updated) == {"batch_stats"}
    _, expected = linen(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated, expected)
    assert output.shape == (3, 3)
    again = fn(variables, X, train=True, rngs={"dropout": key})
    np.testing.assert_array_equal(again, output)


def test_evaluation_changes_nothing(pair):
    _, fn, variables = pair
    _, updated = fn(variables, X, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    assert fn(variables, X, mutable=["cache"])[1] == {}


@pytest.mark.parametrize("streams", [{"default": 0}, {"params": 0, "dropout": 1}])
def test_rngs_seed_the_streams(streams):
    fn, variables = reg.nnx_function(NNXNet(nnx.Rngs(**streams)))
    one, two = jax.random.split(jax.random.key(3), 2)

    def outputs(**rngs):
        return np.asarray(fn(variables, X, train=True, rngs=rngs))

    assert np.any(outputs(dropout=one) != outputs(dropout=two))
    np.testing.assert_array_equal(outputs(dropout=one), outputs(dropout=one))
    # A name that the model does not have is ignored, except that the default stream serves all.
    np.testing.assert_array_equal(outputs(dropout=one, noise=two), outputs(dropout=one))
    # Without rngs the streams start where the model's own stand: calls are pure.
    np.testing.assert_array_equal(outputs(), outputs())


def test_a_model_without_streams_takes_any_rngs():
    fn, variables = reg.nnx_function(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    x = jnp.ones((1, 2))
    rngs = {"dropout": jax.random.key(0)}
    np.testing.assert_array_equal(fn(variables, x, train=True, rngs=rngs), fn(variables, x))


def test_the_model_itself_is_not_changed():
    model = NNXNet(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.split(model, nnx.RngState, ...)[2])
    fn, variables = reg.nnx_function(model)
    fn(jax.tree.map(jnp.ones_like, variables), X, train=True)
    after = nnx.split(model, nnx.RngState, ...)[2]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, after))


def test_works_under_jit_and_grad(pair):
    linen, fn, variables = pair
    ours, theirs = (jax.jit(jax.grad(lambda v, f=f: f(v, X).sum())) for f in (fn, linen))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ours(variables)["params"],
        theirs(variables)["params"],
    )


def test_keyword_arguments_reach_the_model():
    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x, scale):
            return scale * self.dense(x)

    fn, variables = reg.nnx_function(Scaled(nnx.Rngs(0)))
    x = jnp.ones((1, 2))
    np.testing.assert_allclose(fn(variables, x, scale=3.0), 3.0 * fn(variables, x, scale=1.0))


def test_abstract_models_can_be_traced():
    model = nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0)))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert graph.widths == {"conv": 6, "hidden": 7}


def test_missing_variables_are_an_error(pair):
    _, fn, variables = pair
    with pytest.raises(KeyError, match="batch_stats"):
        fn({"params": variables["params"]}, X)
