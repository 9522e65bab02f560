from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import morph
import regularizers as reg
from experiments import networks
from regularizers.costs.cost import Line, multilinear
from regularizers.costs.sizes import monomials
from regularizers.primitives.axes import Product, Sum

COSTS = {"flops": reg.flops, "model_size": reg.model_size}
ALL_COSTS = COSTS | {
    "activation_bytes": reg.activation_bytes,
    "activation_peak": partial(reg.activation_bytes, peak=True),
    "V100": partial(reg.latency, device="V100"),
    "energy": reg.energy,
    "edge_tpu": partial(reg.latency, device="edge_tpu"),
}
NETWORKS = [  # Flax's average pooling divides by an integer
    "resnet8", pytest.param("inception", marks=pytest.mark.promotes), "transformer",
]  # fmt: skip


class TransformerBlock(nn.Module):
    """Attention and a perceptron, both beside a shortcut, after a dense embedding."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="embed")(x)
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8)(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(10, name="up")(nn.LayerNorm()(x)))
        x = x + nn.Dense(6, name="down")(y)
        return nn.Dense(3, name="head")(x.mean(axis=1))


@cache
def seed_network(name):
    """A network, its abstract variables and its graph."""
    if name == "transformer":
        model, shape = TransformerBlock(), (2, 5, 7)
    else:
        shape = (2, 13, 11, 3)
        model = networks.build(name, input_shape=shape[1:], num_classes=7, width=0.5)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return model, variables, x, reg.trace_channels(model.apply, variables, x)


TOY = (
    (Line(layer="one", detail="ab"), (3.0, ("a", "b"))),
    (Line(layer="two", detail="a+2"), (5.0, (Sum(("a", 2)),))),
    (Line(layer="two", detail="aa"), (7.0, (Product(("a", "a")),))),
    (Line(layer="three", detail=""), (1.0, (11,))),
)


def toy_cost(addends=TOY):
    """3 a b + 5 (a + 2) + 7 a^2 + 11."""
    return multilinear({"a": 4, "b": 6}, "toy", "coins", addends)


def toy_formula(a, b):
    return 3 * a * b + 5 * (a + 2) + 7 * a**2 + 11


@pytest.mark.parametrize(("a", "b"), [(4, 6), (1, 5), (0, 0), (7, 0), (2.5, 3.25)])
def test_value_is_the_sum_of_addends(a, b):
    cost = toy_cost()
    assert cost.smooth({"a": a, "b": b}) == toy_formula(a, b)
    assert cost({"a": jnp.float32(a), "b": int(b)}) == toy_formula(a, int(b))
    assert cost.of_vector(np.array([a, b], float)) == toy_formula(a, b)


def test_groups_that_are_not_named_keep_their_seed_width():
    cost = toy_cost()
    assert cost() == toy_formula(4, 6)
    assert cost({"b": 1}) == toy_formula(4, 1)


def test_python_and_numpy_widths_are_counted_exactly():
    n = 2**20 + 1  # its square needs 41 bits, more than float32 has
    cost = toy_cost(TOY[:1])
    assert cost({"a": n, "b": np.int64(n)}) == 3 * n * n
    assert isinstance(cost({"a": n}), float)


def test_axes_are_sums_of_monomials():
    axis = Sum((3, Product(("a", Sum(("b", 2))))))
    assert monomials(axis) == [(3.0, ()), (1.0, ("a", "b")), (2.0, ("a",))]
    with pytest.raises(TypeError, match=r"not an axis: 1\.5"):
        monomials(1.5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", COSTS)
def test_gradient_equals_finite_differences(name, kind):
    """Exact for central differences: every width enters at most quadratically."""
    cost = COSTS[kind](seed_network(name)[3])
    scale = cost()
    gradient = jax.jit(jax.grad(cost))({name: float(w) for name, w in cost.groups.items()})
    for group, width in cost.groups.items():
        difference = (cost({group: width + 1}) - cost({group: width - 1})) / 2
        np.testing.assert_allclose(gradient[group] / scale, difference / scale, rtol=1e-5)
        assert difference > 0


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", sorted(ALL_COSTS.keys() - COSTS.keys()))
def test_gradient_of_smooth_equals_finite_differences(name, kind):
    """JAX's gradient in float32, central differences by numpy in float64."""
    cost = ALL_COSTS[kind](seed_network(name)[3])
    scale = cost()
    gradient = cost.marginal([*cost.groups.values()]) / scale
    differences = []
    for group, width in cost.groups.items():
        step = 1e-4 * width
        above, below = cost.smooth({group: width + step}), cost.smooth({group: width - step})
        differences.append((above - below) / (2 * step * scale))
    largest = max(differences)
    assert min(differences) > -1e-9 * largest  # but for rounding
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ALL_COSTS)
def test_a_narrower_network_costs_no_more(name, kind):
    cost = ALL_COSTS[kind](seed_network(name)[3])
    rng = np.random.default_rng(0)
    widths = dict(cost.groups)
    before = cost(widths)
    for group in rng.permutation([*widths]):
        widths[str(group)] = max(1, widths[str(group)] // 2)
        after = cost(widths)
        assert after <= before
        before = after
    assert before < cost()


@pytest.mark.parametrize("kind", ALL_COSTS)
def test_jax_and_numpy_agree(kind):
    """Compiled over a batch of widths, in float32, and one by one in float64."""
    cost = ALL_COSTS[kind](seed_network("resnet8")[3])
    seed = cost.vector()
    widths = np.stack([seed, np.ceil(seed / 2), np.ceil(seed / 3), np.ones_like(seed)])
    found = jax.jit(jax.vmap(cost.of_vector))(jnp.asarray(widths, jnp.float32))
    np.testing.assert_allclose(found, [cost.of_vector(row) for row in widths], rtol=1e-6)


def test_works_under_jit_and_vmap():
    cost = toy_cost()
    widths = jnp.array([[4.0, 6.0], [1.0, 5.0]])
    values = jax.jit(jax.vmap(cost.of_vector))(widths)
    np.testing.assert_array_equal(values, [toy_formula(4, 6), toy_formula(1, 5)])
    assert jax.jit(cost)({"a": 2}) == toy_formula(2, 6)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_cost_of_the_resized_network_traced_again(name):
    model, variables, x, graph = seed_network(name)
    rng = np.random.default_rng(0)
    alive = {group: rng.random(width) < 0.6 for group, width in graph.widths.items()}
    arch = morph.shrink(graph, alive)
    assert set(arch.widths.values()) != set(graph.widths.values())
    small = reg.trace_channels(morph.compact(model.apply, arch), arch.take(variables), x)
    for build in COSTS.values():
        assert build(graph)(arch.widths) == build(small)() < build(graph)()
    assert sum(arch.flops().values()) == reg.flops(small)()
    assert sum(arch.parameters().values()) == reg.model_size(small)()


@pytest.mark.parametrize("kind", COSTS)
def test_table_adds_up_and_prints(kind):
    graph = seed_network("resnet8")[3]
    cost = COSTS[kind](graph)
    widths = {next(iter(graph.widths)): 3}
    for given in (None, widths):
        table = cost.table(given)
        assert sum(row.cost for row in table) == cost(given)
        np.testing.assert_allclose(sum(row.share for row in table), 1.0)
    assert cost.table()[0].layer == cost.lines[0].layer
    text = str(cost.table()).splitlines()
    assert len(text) == len(cost.table()) + 1
    assert text[0].split() == ["layer", "detail", cost.unit, "share"]
    assert len(set(map(len, text))) == 1


def test_table_merges_the_operations_of_a_layer():
    variables = {"w": jnp.zeros((5, 5)), "v": jnp.zeros((5, 2))}

    def fn(v, x):
        return x @ v["w"] @ v["w"] @ v["v"]

    table = reg.flops(reg.trace_channels(fn, variables, jnp.ones((3, 5)))).table()
    assert [(row.layer, row.cost) for row in table] == [("w", 2 * 2 * 3 * 5 * 5), ("v", 2 * 3 * 10)]
    assert str(table).splitlines()[1] == "w      dense                300   83.3%"


def test_table_of_a_cost_of_nothing():
    free = toy_cost(TOY[:1]).table({"a": 0})
    assert [(row.cost, row.share) for row in free] == [(0.0, 0.0)]
    assert toy_cost(())() == 0.0
    assert len(toy_cost(()).table()) == 0


def test_unknown_groups_are_named_with_near_matches():
    cost = reg.flops(seed_network("resnet8")[3])
    with pytest.raises(
        KeyError, match="no channel group 'Block_0/ConvNormRelu_0/Conv'; did you mean"
    ):
        cost({"Block_0/ConvNormRelu_0/Conv": 3})
    with pytest.raises(KeyError, match="no channel group 'c'; known are 'a', 'b'"):
        toy_cost()({"c": 1})


@pytest.mark.parametrize("width", [-1, -0.5, float("nan"), np.int64(-3)])
def test_negative_widths_are_refused(width):
    with pytest.raises(ValueError, match=f"the width of 'a' must be at least 0, found {width}"):
        toy_cost()({"a": width})


def test_without_some_groups_nothing_of_them_is_counted():
    v = {"a": np.ones((5, 7), "f"), "b": np.ones((7, 6), "f"), "z": np.ones((6, 3), "f")}
    fn = lambda v, x: jnp.tanh(jnp.tanh(x @ v["a"]) @ v["b"]) @ v["z"]  # noqa: E731
    cost = reg.flops(reg.trace_channels(fn, v, np.ones((1, 5), "f")))
    left = cost.without({"a"})
    assert left.groups == {"b": 6}
    assert left({"b": 4}) == cost({"a": 0, "b": 4}) == 2 * 4 * 3
    assert left.seed == cost({"a": 0})
    np.testing.assert_array_equal(left.marginal(np.ones(1)), cost.marginal(np.asarray([0, 1]))[1:])
    assert cost.without(()).seed == cost.seed
