"""Factorized kernels stand where dense ones stood, whatever the function does with them."""

from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum
import pytest
from kernel_cases import assert_close, factorized, normal

import morph
import regularizers as reg
from morph.kernels.factorized import Factorized, is_factorized
from morph.kernels.formats import FORMATS, tt

KINDS = sorted(FORMATS)


def dense(tree):
    return jax.tree.map(
        lambda leaf: leaf.dense() if is_factorized(leaf) else leaf, tree, is_leaf=is_factorized
    )


CONVOLUTIONS = [
    pytest.param(padding, stride, lhs, rhs, layout, id=f"{padding}-{stride}-{lhs}-{rhs}-{layout}")
    for padding, stride, lhs, rhs, layout in [
        (((1, 1), (0, 1)), (1, 1), (1, 1), (1, 1), "last"),
        (((0, 0), (0, 0)), (2, 3), (1, 1), (1, 1), "last"),
        (((2, 1), (0, 3)), (2, 1), (1, 1), (1, 2), "first"),
        (((2, 2), (1, 0)), (1, 1), (2, 1), (1, 1), "first"),
        (((-1, 1), (0, 0)), (1, 2), (1, 3), (2, 1), "last"),
    ]
]


@pytest.mark.parametrize("window", [(3, 2), (1, 1)])
@pytest.mark.parametrize(("padding", "stride", "lhs", "rhs", "layout"), CONVOLUTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_cores_is_the_convolution(kind, padding, stride, lhs, rhs, layout, window):
    last = layout == "last"
    numbers = ("NHWC", "HWIO", "NHWC") if last else ("NCHW", "OIHW", "NCHW")
    shape = (*window, 6, 8) if last else (8, 6, *window)
    kernel = factorized(kind, shape, "ssio" if last else "oiss")
    x = normal(2, 7, 9, 6) if last else normal(2, 6, 7, 9)

    def convolve(variables, x):
        return jax.lax.conv_general_dilated(
            x, variables["k"], stride, padding, lhs, rhs, numbers, precision="highest"
        )

    assert kernel.shape == shape
    found = jax.jit(morph.tensorized(convolve))({"k": kernel}, x)
    assert_close(found, convolve({"k": kernel.dense()}, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("roles", "shape", "x", "subscripts"),
    [
        ("io", (12, 20), (5, 12), "ni,io->no"),
        ("oi", (20, 12), (3, 5, 12), "bni,oi->bno"),
        ("ioo", (12, 4, 5), (5, 3, 12), "nti,ihd->nthd"),
        ("iio", (4, 5, 12), (5, 3, 4, 5), "nthd,hdo->nto"),
    ],
)
def test_products(kind, roles, shape, x, subscripts):
    variables, x = {"k": factorized(kind, shape, roles)}, normal(*x)

    def multiply(variables, x):
        return jnp.einsum(subscripts, x, variables["k"])

    fn = morph.tensorized(multiply)
    assert_close(fn(variables, x), multiply(dense(variables), x))
    batched = jax.vmap(fn, (None, 0))(variables, x[None])
    assert_close(batched[0], multiply(dense(variables), x))

    def loss(fn):
        return lambda variables: jnp.square(fn(variables, x)).sum()

    found = jax.grad(loss(fn))(variables)
    expected = jax.grad(lambda v: loss(multiply)(dense(v)))(variables)
    for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(own, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "look",
    [
        lambda table, i: table[i],
        lambda table, i: jnp.take(table, i, axis=0),
        lambda table, i: jnp.take(table, i, axis=1, mode="clip"),
    ],
)
def test_lookups(kind, look):
    variables = {"k": factorized(kind, (30, 24), "io")}
    indices = jnp.asarray([[0, 5, 29], [-1, 7, 40]])
    found = morph.tensorized(lambda v, i: look(v["k"], i))(variables, indices)
    np.testing.assert_allclose(found, look(variables["k"].dense(), indices), atol=1e-4)


class Network(nn.Module):
    """Convolutions, also grouped, attention, a tied table, casts."""

    @nn.compact
    def __call__(self, indices):
        embed = nn.Embed(30, 12)
        x = embed(indices)
        x = nn.relu(nn.Conv(12, (3,), feature_group_count=2)(x))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, dtype=jnp.bfloat16)(x, x)
        x = nn.relu(nn.ConvTranspose(12, (3,), strides=(2,))(x.astype(jnp.float32)))
        return embed.attend(x)


@pytest.mark.promotes
def test_a_whole_network_with_every_leaf_factorized():
    model, x = Network(), jnp.asarray([[0, 5, 29, 3, 8], [2, 7, 11, 1, 1]])
    variables = model.init(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plan = morph.tensorize_plan(graph, variables, energy=0.7)
    assert [why[:29] for why in plan.left.values()] == ["used by a grouped convolution"]
    cores = plan.factorize(variables)
    assert sum(map(is_factorized, jax.tree.leaves(cores, is_leaf=is_factorized))) == 6
    found = jax.jit(morph.tensorized(model.apply))(cores, x)
    assert_close(found, model.apply(dense(cores), x), 0.02)  # attention in bfloat16


def test_loops_branches_and_remat_take_factorized_kernels():
    variables = {
        "stack": Factorized(
            cores=(normal(4, 6, 2), normal(4, 2, 6)),
            format=FORMATS["svd"]((6, 6), "io")[0].stacked(0),
        ),
        "one": factorized("tt", (6, 6), "io"),
    }

    def fn(variables, x):
        def layer(x, kernel):
            return jax.checkpoint(lambda x, k: jnp.tanh(x @ k))(x, kernel), None

        x, _ = jax.lax.scan(layer, x, variables["stack"])
        x = jax.lax.cond(x.sum() > 0, lambda x, k: x @ k, lambda x, k: x @ k.T, x, variables["one"])
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ variables["one"]), x)

    x = normal(3, 6)
    tensorized = morph.tensorized(fn)
    assert_close(tensorized(variables, x), fn(dense(variables), x))
    text = str(jax.make_jaxpr(tensorized)(variables, x))
    assert "scan" in text
    assert "4,6,6" not in text.replace(" ", "")  # the stack was never made dense


def test_elsewhere_a_kernel_is_dense():
    variables = {"k": factorized("svd", (4, 6), "io")}

    @jax.custom_jvp
    def double(k):
        return 2 * k

    double.defjvp(lambda primals, tangents: (double(*primals), 3 * tangents[0]))
    fn = morph.tensorized(lambda v, x: x @ (double(v["k"]) / jnp.linalg.norm(v["k"])))
    x = normal(2, 4)
    k = variables["k"].dense()
    assert_close(fn(variables, x), 2 * x @ k / jnp.linalg.norm(k))


def test_bonds_are_channel_groups_and_shrink_with_the_channels():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3))(x))
            x = nn.relu(nn.Conv(10, (3, 3))(x)).mean((1, 2))
            return nn.Dense(3)(x)

    model, x = Net(), normal(2, 5, 5, 4)
    variables = model.init(jax.random.key(0), x)
    variables["params"]["Conv_0"]["kernel"] = factorized("tucker2", (3, 3, 4, 8), "ssio")
    variables["params"]["Conv_1"]["kernel"] = factorized("cp", (3, 3, 8, 10), "ssio")
    fn = morph.tensorized(model.apply)
    graph = reg.trace_channels(fn, variables, x)
    assert sorted(graph.widths.values()) == [3, 3, 3, 8, 10]
    alive = {name: np.arange(width) % 3 != 1 for name, width in graph.widths.items()}
    arch = morph.shrink(graph, alive)
    small = arch.take(variables)
    assert small["params"]["Conv_0"]["kernel"].ranks == {"r_in": 2, "r_out": 2}
    assert small["params"]["Conv_1"]["kernel"].shape == (3, 3, 5, 7)
    assert_close(morph.compact(fn, arch)(small, x), fn(graph.mask(variables, alive), x))
    ratio = reg.flops(graph)() / reg.flops(reg.trace_channels(model.apply, dense(variables), x))()
    assert ratio < 0.5


@pytest.mark.parametrize(("batch", "cores"), list(product((1, 16), (2, 3))))
def test_the_compiled_flops_are_those_of_the_optimal_path(batch, cores):
    format, sizes = tt((64, 64), "io", cores=cores)
    sizes = {n: min(size, 4) if n in format.bonds else size for n, size in sizes.items()}
    kernel = Factorized(cores=tuple(map(jnp.ones, format.core_shapes(sizes))), format=format)
    x = jnp.ones((batch, *(sizes[n] for n in format.axes[0])))
    letters = {n: opt_einsum.get_symbol(k) for k, n in enumerate(["n", *sizes])}
    operands = [("n", *format.axes[0]), *format.labels]
    subscripts = ",".join("".join(letters[n] for n in own) for own in operands)
    out = "".join(letters[n] for n in ("n", *format.axes[1]))
    arrays = [x, *kernel.cores]
    _, path = opt_einsum.contract_path(f"{subscripts}->{out}", *arrays, optimize="optimal")
    fn = morph.tensorized(lambda variables, x: x @ variables["k"])
    compiled = jax.jit(fn).lower({"k": kernel}, x.reshape(batch, 64)).compile()
    counted = compiled.cost_analysis()["flops"]
    assert counted <= 1.02 * float(path.opt_cost)


def test_reconstructed_is_the_same_function():
    variables, x = {"k": factorized("tt", (12, 20), "io")}, normal(5, 12)
    found = morph.tensorized(lambda v, x: x @ v["k"], mode="reconstructed")(variables, x)
    assert_close(found, x @ variables["k"].dense())


def test_an_unknown_mode():
    with pytest.raises(ValueError, match=r"mode must be one of factorized, .* found 'fast'"):
        morph.tensorized(lambda v, x: x, mode="fast")
