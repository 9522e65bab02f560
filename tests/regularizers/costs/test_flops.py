import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import regularizers as reg
from experiments import networks


class Sandwich(nn.Module):
    """A layer between two pointwise ones, so that its input and output widths are groups."""

    into: int
    layer: nn.Module
    last: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.into, use_bias=False, name="before")(x)
        x = self.layer(x)
        return nn.Dense(self.last, use_bias=False, name="after")(x)


def traced(model, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return reg.trace_channels(model.apply, variables, x)


def conv_7x5(batch=1):
    layer = nn.Conv(19, (7, 5), strides=2, use_bias=False)
    return traced(Sandwich(17, layer), (batch, 11, 13, 2))


def transposed_7x5():
    layer = nn.ConvTranspose(29, (7, 5), strides=(2, 2), use_bias=False)
    return traced(Sandwich(17, layer), (1, 11, 13, 2))


def dense():
    return traced(Sandwich(17, nn.Dense(19, use_bias=False)), (1, 2))


def depthwise_3x2():
    layer = nn.Conv(10, (3, 2), feature_group_count=10, use_bias=False)
    return traced(Sandwich(10, layer), (1, 6, 7, 2))


CASES = {
    "conv": (conv_7x5, {"before": 17, "layer": 19}, 2940, 949_620, 35, 11_305),
    "transposed conv": (transposed_7x5, {"before": 17, "layer": 29}, 10_010, 4_934_930, 35, 17_255),
    "dense": (dense, {"before": 17, "layer": 19}, 2, 646, 1, 323),
}


@pytest.mark.parametrize("case", CASES)
def test_contractions_cost_what_morphnet_says(case):
    build, widths, flop_coefficient, flops, weight_coefficient, weights = CASES[case]
    graph = build()
    assert graph.widths == widths
    into, out = widths.values()
    for cost, coefficient, total in (
        (reg.flops(graph).of_layers("layer"), flop_coefficient, flops),
        (reg.model_size(graph).of_layers("layer"), weight_coefficient, weights),
    ):
        assert cost() == total
        assert cost({"before": 1, "layer": 1}) == coefficient
        gradient = jax.grad(cost)({"before": float(into), "layer": float(out)})
        assert gradient == {"before": coefficient * out, "layer": coefficient * into}


def test_depthwise_conv_costs_its_window_per_channel():
    graph = depthwise_3x2()
    assert graph.widths == {"before": 10}
    cost, size = reg.flops(graph).of_layers("layer"), reg.model_size(graph).of_layers("layer")
    assert (cost({"before": 1}), cost()) == (504, 5040)
    assert (size({"before": 1}), size()) == (6, 60)
    # The derivative is C R, where MorphNet's own depthwise rule charges C (R_in + R_out): here
    # input and output are one width, and the regularizer is the derivative of the cost.
    _, term = jax.jvp(cost, ({"before": 4.0},), ({"before": 3.0},))
    assert term == 504 * 3


def test_regularization_is_the_derivative_along_the_strengths():
    graph = conv_7x5(batch=32)
    alive, strengths = {"before": 4.0, "layer": 9.0}, {"before": 3.0, "layer": 7.0}
    for cost, value, term in (
        (reg.flops(graph), 3_386_880, 5_174_400),  # 94,080 (4 x 7 + 9 x 3)
        (reg.model_size(graph), 35 * 4 * 9, 1_925),
    ):
        cost = cost.of_layers("layer")
        assert cost({"before": 4, "layer": 9}) == value
        assert jax.jvp(cost, (alive,), (strengths,)) == (value, term)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (3, 1), (1, 2)])
def test_conv_counts_every_tap_at_every_output(padding, stride, dilation):
    n, h, w, i, o, kh, kw = 2, 11, 13, 5, 7, 3, 2
    layer = nn.Conv(o, (kh, kw), stride, padding, kernel_dilation=dilation, use_bias=False)
    graph = traced(Sandwich(i, layer), (n, h, w, 2))
    if padding == "SAME":
        oh, ow = math.ceil(h / stride), math.ceil(w / stride)
    else:
        oh = math.ceil((h - dilation * (kh - 1)) / stride)
        ow = math.ceil((w - dilation * (kw - 1)) / stride)
    assert reg.flops(graph).of_layers("layer")() == 2 * n * oh * ow * kh * kw * i * o


def test_grouped_conv_counts_the_channels_of_one_group():
    n, h, w, i, o, k, groups = 2, 5, 7, 6, 9, 3, 3
    layer = nn.Conv(o, (k, k), feature_group_count=groups, use_bias=False)
    graph = traced(Sandwich(i, layer), (n, h, w, 2))
    assert reg.flops(graph).of_layers("layer")() == 2 * n * h * w * k * k * (i // groups) * o


def test_matrix_product_counts_m_k_n():
    m, k, n = 5, 7, 11

    def fn(variables, x):
        return x @ variables["first"] @ variables["second"]  # [m, k] @ [k, n] @ [n, 3]

    variables = {"first": jnp.zeros((k, n)), "second": jnp.zeros((n, 3))}
    cost = reg.flops(reg.trace_channels(fn, variables, jnp.zeros((m, k))))
    assert cost() == 2 * m * k * n + 2 * m * n * 3
    assert cost({"first": 4}) == 2 * m * k * 4 + 2 * m * 4 * 3


def test_attention_counts_projections_and_products():
    b, t, d, h, f = 2, 5, 6, 3, 4  # batch, tokens, model, heads, head width

    def fn(variables, x):
        q, k, v = (jnp.einsum("btd,dhf->bthf", x, variables[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k))
        return jnp.einsum("bhts,bshf,hfd->btd", weights, v, variables["out"])

    variables = {name: jax.ShapeDtypeStruct((d, h, f), jnp.float32) for name in "qkv"}
    variables["out"] = jax.ShapeDtypeStruct((h, f, d), jnp.float32)
    x = jax.ShapeDtypeStruct((b, t, d), jnp.float32)
    cost = reg.flops(reg.trace_channels(fn, variables, x))
    projection, product = 2 * b * t * d * h * f, 2 * b * h * t * t * f
    assert cost() == 4 * projection + 2 * product


@pytest.mark.promotes
def test_inception_v2_has_the_published_counts():
    model = networks.build("inception_v2", input_shape=(224, 224, 3), num_classes=1001)
    graph = traced(model, (1, 224, 224, 3))
    assert reg.flops(graph)() == 3_869_716_480
    kernels = [row.cost for row in reg.model_size(graph).table() if row.detail == "kernel"]
    assert sum(kernels) == 11_168_408


class Plain(nn.Module):
    """Convolutions and matrix products without bias: nothing else that XLA counts."""

    padding: str

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(11, (5, 3), padding=self.padding, use_bias=False)(x)
        x = nn.Conv(7, (3, 3), strides=2, padding=self.padding, use_bias=False)(x)
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(3, use_bias=False)(nn.Dense(13, use_bias=False)(x))


class Strided(nn.Module):
    """Strides that leave a rest, and a window wider than it is high."""

    padding: str

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 5), strides=(2, 3), padding=self.padding, use_bias=False)(x)
        return nn.Conv(5, (2, 2), strides=2, padding=self.padding, use_bias=False)(x)


class Dilated(nn.Module):
    """Windows with holes."""

    padding: str

    @nn.compact
    def __call__(self, x):
        for width, dilation in ((7, 2), (5, (1, 3))):
            conv = nn.Conv(
                width, (3, 3), padding=self.padding, kernel_dilation=dilation, use_bias=False
            )
            x = conv(x)
        return x


class Transposed(nn.Module):
    """A decoder: upwards by two, and by three."""

    padding: str

    @nn.compact
    def __call__(self, x):
        x = nn.ConvTranspose(7, (4, 4), strides=(2, 2), padding=self.padding, use_bias=False)(x)
        return nn.ConvTranspose(5, (3, 3), strides=(3, 3), padding=self.padding, use_bias=False)(x)


class Separable(nn.Module):
    """Depthwise with a multiplier, pointwise, grouped."""

    padding: str

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        conv = partial(nn.Conv, padding=self.padding, use_bias=False)
        x = conv(2 * c, (3, 3), feature_group_count=c)(x)
        return conv(9, (3, 2), feature_group_count=3)(conv(12, (1, 1))(x))


class Attention(nn.Module):
    """Projections and batched products over all positions."""

    padding: str

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1, x.shape[-1])[:, :37]
        q, k, v = (nn.DenseGeneral((3, 4), use_bias=False)(x) for _ in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", scores, v)
        return nn.DenseGeneral(7, axis=(-2, -1), use_bias=False)(mixed)


class Sequence(nn.Module):
    """Convolutions along one axis, and along three."""

    padding: str

    @nn.compact
    def __call__(self, x):
        n, c = x.shape[0], x.shape[-1]
        conv = partial(nn.Conv, padding=self.padding, use_bias=False)
        y = conv(7, (4,), strides=3)(x.reshape(n, -1, c))
        z = conv(6, (3, 3, 2))(x[:, :60, :60, 0].reshape(n, 15, 15, 16, 1))
        return y, z


PLAIN = (Plain, Strided, Dilated, Transposed, Separable, Attention, Sequence)


def flops_by_xla(model, x):
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.jit(model.apply).lower(variables, x).cost_analysis()["flops"]


@pytest.mark.parametrize("plain", PLAIN)
def test_flops_equal_those_of_xla_without_padding(plain):
    x = jax.ShapeDtypeStruct((2, 61, 67, 5), jnp.float32)
    model = plain("VALID")
    assert reg.flops(traced(model, x.shape))() == flops_by_xla(model, x)


@pytest.mark.parametrize("plain", PLAIN)
def test_flops_exceed_those_of_xla_by_the_padding(plain):
    """By 12 % at most, where maps are larger than windows: 3 x 3 on 8 x 8 is 19 % above."""
    x = jax.ShapeDtypeStruct((2, 61, 67, 5), jnp.float32)
    model = plain("SAME")
    ours, theirs = reg.flops(traced(model, x.shape))(), flops_by_xla(model, x)
    assert theirs <= ours < 1.12 * theirs
    assert (ours == theirs) == (plain is Attention)  # which pads nothing


@pytest.mark.parametrize(("n", "k"), [(8, 3), (32, 3), (7, 5)])
def test_what_xla_leaves_out_is_the_padding(n, k):
    """Along an axis of n positions, 1 + 2 + ... of the k n taps miss the map at either end."""
    model, x = nn.Conv(3, (k, k), use_bias=False), jax.ShapeDtypeStruct((1, n, n, 2), jnp.float32)
    missed = 2 * sum(range(1, k // 2 + 1))
    assert reg.flops(traced(model, x.shape))() == 2 * (k * n) ** 2 * 2 * 3
    assert flops_by_xla(model, x) == 2 * (k * n - missed) ** 2 * 2 * 3


def test_rows_name_operation_and_window():
    details = [
        row.detail
        for build in (conv_7x5, transposed_7x5, dense, depthwise_3x2)
        for row in reg.flops(build()).lines
        if row.layer == "layer"
    ]
    assert details == ["conv 7x5", "transposed conv 7x5", "dense", "depthwise conv 3x2"]


def test_flops_scale_with_the_batch():
    one, many = (reg.flops(conv_7x5(batch))() for batch in (1, 32))
    assert many == 32 * one
