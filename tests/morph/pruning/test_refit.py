"""What is left takes over from what goes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.architecture.parts import ResizedGroup
from morph.pruning.products import products
from morph.pruning.refit import made_up, strengths
from regularizers.errors import InputError


class Net(nn.Module):
    """A hidden layer of which unit 4 repeats units 0 and 1, and unit 2 is 3 whatever comes in."""

    @nn.compact
    def __call__(self, x):
        heads = nn.DenseGeneral((2, 5), name="heads")(x)
        return nn.DenseGeneral(3, axis=(-2, -1), name="out")(nn.tanh(heads))


MODEL = Net()


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(64, 7)), jnp.float32)


@pytest.fixture(scope="module")
def variables(x):
    given = MODEL.init(jax.random.key(0), x)
    kernel = np.asarray(given["params"]["heads"]["kernel"]).copy()  # [7, 2, 5]
    bias = np.full((2, 5), 0.1, np.float32)
    kernel[:, :, 4] = kernel[:, :, 0]
    kernel[:, :, 2], bias[:, 2] = 0.0, 3.0
    params = {
        **given["params"],
        "heads": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)},
    }
    return {"params": params}


@pytest.fixture(scope="module")
def graph(variables, x):
    return reg.trace_channels(MODEL.apply, variables, x[:1])


@pytest.fixture(scope="module")
def within(graph):
    """The name of the group of five."""
    return next(name for name, width in graph.widths.items() if width == 5)


def without(graph, name, gone):
    return morph.shrink(graph, {name: ~np.isin(np.arange(graph.widths[name]), gone)})


def test_what_others_can_say_is_said_by_them(graph, variables, x, within):
    arch = without(graph, within, [2, 4])  # the constant goes into the bias
    small = morph.refit(graph, arch, variables, fn=MODEL.apply, batches=[x[:32], x[32:]])
    fn, whole = morph.compact(MODEL.apply, arch), MODEL.apply(variables, x)
    np.testing.assert_allclose(fn(small, x), whole, atol=0.02)
    assert np.abs(fn(arch.take(variables), x) - whole).max() > 0.5
    alone = morph.refit(
        graph, arch, variables["params"], fn=lambda p, x: MODEL.apply({"params": p}, x), batches=[x]
    )
    np.testing.assert_allclose(fn({"params": alone}, x), whole, atol=0.02)


def test_the_rest_comes_as_close_as_least_squares_do():
    rng = np.random.default_rng(1)
    inputs, matrix = rng.normal(size=(50, 6)) + 1.0, rng.normal(size=(6, 2))
    stays = np.asarray([5, 0, 3])
    ones = np.ones((50, 1))
    moments = np.concatenate([inputs, ones], 1).T @ np.concatenate([inputs, ones], 1) / 50
    change, shift = made_up(moments, matrix, stays, shifted=True)
    left = np.concatenate([inputs[:, stays], ones], 1)
    best, *_ = np.linalg.lstsq(left, inputs @ matrix, rcond=None)
    np.testing.assert_allclose(matrix[stays] + change, best[:3], atol=0.05)
    np.testing.assert_allclose(shift, best[3], atol=0.1)
    _, none = made_up(moments, matrix, stays, shifted=False)
    np.testing.assert_array_equal(none, np.zeros(2))


def test_what_can_be_made_up_for_goes_first(graph, variables, x, within):
    found = products(graph, MODEL.apply, variables, [x])
    (layer,) = found.values()
    assert (layer.inputs, layer.size) == ((0, 1), 10)
    scores = {name: np.full(width, 2.0) for name, width in graph.widths.items()}
    made = strengths(graph, variables, found, scores)
    twins = sorted(made[within][[0, 4]])
    assert twins[0] < 0.05 * twins[1]  # only one of them is of use
    assert made.keys() == scores.keys()


def test_pruned_by_what_cannot_be_made_up_for_it_loses_less(graph, variables, x):
    whole = MODEL.apply(variables, x)

    def loss(variables, batch):
        return jnp.mean(jnp.square(MODEL.apply(variables, batch[0]) - batch[1]))

    batches = [(x[:32], whole[:32] + 1.0), (x[32:], whole[32:] - 1.0)]
    cost = reg.model_size(graph)
    arch = morph.prune(graph, variables, cost, 0.7, loss=loss, batches=batches, by="refit")
    assert cost(arch.widths) <= 0.7 * cost.seed
    small = morph.refit(graph, arch, variables, fn=loss, batches=batches)
    fn = morph.compact(MODEL.apply, arch)
    kept, plain = (jnp.mean(jnp.square(fn(v, x) - whole)) for v in (small, arch.take(variables)))
    assert kept < 0.5 * plain


def test_what_cannot_be_refit_is_refused(graph, variables, x, within):
    arch = without(graph, within, [2])
    with pytest.raises(InputError, match="the batches hold no data"):
        morph.refit(graph, arch, variables, fn=MODEL.apply, batches=[])
    wide = morph.Architecture(
        **{**vars(arch), "groups": {**arch.groups, within: clones(arch.groups[within])}}
    )
    with pytest.raises(InputError, match="clones, or fresh; refit is for"):
        morph.refit(graph, wide, variables, fn=MODEL.apply, batches=[x])


def clones(group):
    return ResizedGroup(seed_width=5, parents=(0, 0, 1, 2), members=group.members)


class Convolved(nn.Module):
    """A map of five channels that a strided, dilated, grouped and transposed convolution read."""

    @nn.compact
    def __call__(self, x):
        y = nn.tanh(nn.Conv(5, (2, 2), name="first")(x))
        norm = nn.BatchNorm(use_running_average=True, name="norm")
        z = norm(nn.Conv(3, (3, 2), 2, kernel_dilation=2, use_bias=False, name="next")(y))
        return z.mean((1, 2)) + nn.ConvTranspose(3, (2, 3), strides=(2, 1), name="up")(y).mean(
            (1, 2)
        )


@pytest.fixture(scope="module")
def convolved():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(8, 9, 8, 2)), jnp.float32)
    given = jax.jit(Convolved().init)(jax.random.key(1), x)
    first = jax.tree.map(np.array, given["params"]["first"])
    first["kernel"][..., 4] = first["kernel"][..., 0]  # [2, 2, 2, 5]
    first["kernel"][..., 2], first["bias"][2] = 0.0, 3.0
    return {**given, "params": {**given["params"], "first": jax.tree.map(jnp.asarray, first)}}, x


def test_convolutions_say_what_others_said_too(convolved):
    variables, x = convolved
    graph = reg.trace_channels(Convolved().apply, variables, x[:1])
    name = next(name for name, width in graph.widths.items() if width == 5)
    arch = without(graph, name, [2, 4])
    small = morph.refit(graph, arch, variables, fn=Convolved().apply, batches=[x[:4], x[4:]])
    fn, whole = jax.jit(morph.compact(Convolved().apply, arch)), Convolved().apply(variables, x)
    assert np.abs(fn(arch.take(variables), x) - whole).max() > 0.2
    np.testing.assert_allclose(fn(small, x), whole, atol=0.1)


def test_inputs_of_a_convolution_are_what_its_kernel_is_multiplied_with(convolved):
    variables, x = convolved
    graph = reg.trace_channels(Convolved().apply, variables, x[:1])
    found = products(graph, Convolved().apply, variables, [x])
    y = nn.tanh(nn.Conv(5, (2, 2)).apply({"params": variables["params"]["first"]}, x))
    layers = {
        "next": nn.Conv(3, (3, 2), 2, kernel_dilation=2, use_bias=False),
        "up": nn.ConvTranspose(3, (2, 3), strides=(2, 1), use_bias=False),
    }
    assert found.keys() == {f"params/{name}/kernel" for name in layers}
    for name, layer in layers.items():
        product = found[f"params/{name}/kernel"]
        assert product.inputs == (2, 0, 1)
        kernel = variables["params"][name]["kernel"]
        given = np.asarray(layer.apply({"params": {"kernel": kernel}}, y)).reshape(-1, 3)
        matrix = product.matrix(kernel)
        moments = matrix.T @ product.moments[:-1, :-1] @ matrix
        np.testing.assert_allclose(moments, given.T @ given / len(given), rtol=1e-4)
        np.testing.assert_array_equal(product.kernel(matrix, kernel.shape), kernel)
