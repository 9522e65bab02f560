"""Which kernels a call runs, and what each of them does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import regularizers as reg
from regularizers.costs.schedule import schedule_of
from regularizers.costs.work import workload_of

B, M, N, K, L = 2, 5, 7, 3, 4
LAYOUT = ("NHWC", "HWIO", "NHWC")


def struct(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


VARIABLES = {
    "a": struct(M, N),
    "b": struct(N, N),
    "c": struct(N, K),
    "deep": struct(L, N, N),
    "bias": struct(1, N),
}
X = struct(B, M)


def traced(fn, *inputs, variables=VARIABLES):
    return reg.trace_channels(fn, variables, *(inputs or (X,)))


def kernels_of(fn, *inputs, variables=VARIABLES):
    return schedule_of(traced(fn, *inputs, variables=variables)).kernels


def kinds(fn, *inputs, variables=VARIABLES):
    return [kernel.kind for kernel in kernels_of(fn, *inputs, variables=variables)]


def work_of(fn, *inputs, variables=VARIABLES):
    graph = traced(fn, *inputs, variables=variables)
    return workload_of(graph).at(np.asarray([*graph.widths.values()], float))


def conv(x, kernel, **options):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, **options)


def between(middle):
    """Something between two products: [B, N] -> [B, N]."""
    return lambda v, x: middle(v, x @ v["a"]) @ v["c"]


# What becomes one kernel


def test_an_elementwise_chain_is_one_kernel():
    (_, chain, _) = kernels_of(between(lambda v, h: jnp.tanh(jnp.abs(h + v["bias"]) * 2.0)))
    assert chain.kind == "elementwise"
    assert chain.primitives == ["add", "abs", "mul", "tanh"]
    assert [value.axes for value in chain.reads] == [(B, "a")]
    assert [value.axes for value in chain.stores] == [(B, "a")]
    assert [hard for _, hard in chain.work] == [False, False, False, True]


def test_conv_batch_norm_relu_is_two_kernels():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(N, (3, 3))(x)))
            return nn.Conv(K, (1, 1), use_bias=False)(x)

    x, model = struct(B, 4, 6, K), Layer()
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    conv, fused, last = kernels_of(model.apply, x, variables=variables)
    assert (conv.kind, fused.kind, last.kind) == ("conv", "elementwise", "conv")
    assert (conv.window, last.window) == ((3, 3), (1, 1))
    # Bias, mean, scale, shift and relu; the reciprocal root is of variables, and free.
    assert fused.primitives == ["add", "sub", "mul", "add", "max"]
    assert fused.reads == conv.stores


def test_a_product_closes_what_it_reads():
    """The relu is read by a product, so that what follows it is another kernel."""

    def fn(v, x):
        h = jax.nn.relu(x @ v["a"])
        y = h @ v["b"]
        return (jnp.tanh(h) + y) @ v["c"]

    assert kinds(fn) == ["dense", "elementwise", "dense", "elementwise", "dense"]
    _, relu, _, last, _ = kernels_of(fn)
    assert relu.primitives == ["max"]
    assert last.primitives == ["tanh", "add"]
    assert len(last.reads) == 2


def test_a_residual_addition_joins_the_chain_before_it():
    def fn(v, x):
        h = x @ v["a"]
        y = jax.nn.relu(h @ v["b"])
        return (h + jnp.sin(y * 2.0)) @ v["c"]

    first, second, join, _ = kernels_of(fn)
    assert join.primitives == ["max", "mul", "sin", "add"]
    assert join.reads == [*second.stores, *first.stores]


def test_two_open_chains_become_one():
    def fn(v, x):
        h, g = x @ v["a"], jnp.cos(x) @ v["a"]
        return (jnp.tanh(h) * jnp.sin(g)) @ v["c"]

    assert kinds(fn) == ["dense", "elementwise", "dense", "elementwise", "dense"]
    kernels = kernels_of(fn)
    gate = kernels[3]
    assert sorted(gate.primitives) == ["mul", "sin", "tanh"]
    assert {id(v) for v in gate.reads} == {id(kernels[k].stores[0]) for k in (0, 2)}
    assert len(gate.stores) == 1
    assert len(gate.writes) == 3


def test_a_pre_activation_block():
    """The sum is read twice: by the next activation, and by the sum after it."""

    def fn(v, x):
        h = x @ v["a"]
        for _ in range(2):
            h = h + jax.nn.relu(h) @ v["b"]
        return h @ v["c"]

    assert kinds(fn) == ["dense", *["elementwise", "dense"] * 3]
    kernels = kernels_of(fn)
    assert [k.primitives for k in kernels[1::2]] == [["max"], ["add", "max"], ["add"]]
    assert len(kernels[3].stores) == 2  # the sum and its relu


def test_softmax_by_kernels():
    found = kernels_of(between(lambda v, h: jax.nn.softmax(h, -1)))
    assert [(k.kind, k.primitives) for k in found[1:-1]] == [
        ("reduce", ["reduce_max"]),
        ("elementwise", ["max"]),  # with minus infinity, per row
        ("elementwise", ["sub", "exp"]),
        ("reduce", ["reduce_sum"]),
        ("elementwise", ["div"]),
    ]
    assert [k.reduced for k in found if k.kind == "reduce"] == [(-1,), (-1,)]
    exponential, quotient = found[3], found[5]
    assert quotient.reads == [*exponential.stores, *found[4].stores]


def test_the_same_array_is_read_once():
    def gram(v, x):
        h = x @ v["a"]
        return jnp.einsum("bn,bm->nm", h, h).sum() + (h * h).sum()

    product = kernels_of(gram)[1]
    assert (product.kind, len(product.reads)) == ("product", 1)
    work = work_of(gram)
    assert work.weights[1] == 0
    assert (work.read[1], work.written[1], work.flops[1]) == (B * N, N * N, 2 * B * N * N)


# What is no kernel


@pytest.mark.parametrize(
    "view",
    [
        lambda h: h.reshape(B, N, 1).reshape(B, N),
        lambda h: lax.stop_gradient(h[:, None])[:, 0],
        lambda h: jnp.broadcast_to(h[None], (3, B, N)),
    ],
)
def test_views_are_free(view):
    found = [k for k in kinds(lambda v, x: view(x @ v["a"]) @ v["c"]) if k != "dense"]
    assert found == []


def test_views_do_not_end_a_chain():
    found = kernels_of(between(lambda v, h: (jnp.tanh(h)[:, :, None] * 2.0).reshape(B, N)))
    assert [k.kind for k in found] == ["dense", "elementwise", "dense"]
    assert found[1].primitives == ["tanh", "mul"]


def test_weights_alone_are_no_kernel():
    def fn(v, x):
        low_rank = jnp.tanh(v["b"] @ v["b"]) / v["b"].sum()
        return jax.nn.relu(x @ (v["a"] @ low_rank)) @ v["c"]

    assert kinds(fn) == ["dense", "elementwise", "dense"]


def test_a_function_of_variables_alone_runs_nothing():
    graph = reg.trace_channels(lambda v: v["a"] @ v["c"], VARIABLES)
    assert schedule_of(graph).kernels == ()
    assert reg.latency(graph, "V100")() == reg.activation_bytes(graph, peak=True)() == 0.0


def test_scalars_are_free_but_what_is_made_of_them_is_not():
    """A time step is embedded: the scalar's own arithmetic is nothing, its embedding counts."""

    def fn(v, t):
        phase = t.astype(jnp.float32) / 10.0
        return jnp.sin(phase * jnp.arange(1.0, M + 1.0)) @ v["a"] @ v["c"]

    found = kernels_of(fn, struct(dtype=jnp.int32))
    assert [k.kind for k in found] == ["elementwise", "dense", "dense"]
    assert found[0].primitives == ["mul", "sin"]
    graph = traced(fn, struct(dtype=jnp.int32))
    work = workload_of(graph).at(np.asarray([*graph.widths.values()], float))
    assert work.flops.sum() == reg.flops(graph)() == 2 * M * N + 2 * N * K
    assert list(work.read) == [0, M, N]


@pytest.mark.parametrize(
    "key", [jax.eval_shape(jax.random.key, 0), struct(2, dtype=jnp.uint32)], ids=["key", "raw"]
)
def test_random_numbers_are_free(key):
    """`morph.compact` draws the seed's and keeps some, so that they are no part of a cost."""

    def fn(v, x, key):
        h = x @ v["a"]
        return jnp.where(jax.random.bernoulli(key, 0.5, h.shape), h * 2.0, 0.0) @ v["c"]

    _, dropout, _ = kernels_of(fn, X, key)
    assert dropout.primitives == ["mul", "select_n"]
    assert [value.axes for value in dropout.reads] == [(B, "a")]


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        jax.named_call,
        lambda f: jax.custom_jvp(f),
        lambda f: lambda h: jax.jit(jax.checkpoint(jax.nn.relu))(f(h)),
    ],
)
def test_calls_are_transparent(wrap):
    """Jit, remat and custom derivatives are looked through, and end no chain."""

    def body(h):
        return jnp.tanh(h) * 2.0

    wrapped = wrap(body)
    if isinstance(wrapped, jax.custom_jvp):
        wrapped.defjvp(lambda p, t: (wrapped(*p), t[0]))
    _, chain, _ = kernels_of(between(lambda v, h: wrapped(h + 1.0) + 3.0))
    assert chain.primitives[:3] == ["add", "tanh", "mul"]
    assert chain.primitives[-1] == "add"


def test_work_inside_a_call_is_counted_once():
    def fn(v, x):
        block = jax.checkpoint(lambda h: jax.nn.relu(h @ v["b"]) @ v["b"])
        return jax.jit(block)(x @ v["a"]) @ v["c"]

    assert kinds(fn) == ["dense", "dense", "elementwise", "dense", "dense"]
    assert [k.count for k in kernels_of(fn)] == [1] * 5


# Loops and branches


def test_a_scan_counts_its_length():
    def fn(v, x):
        h, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ v["a"], v["deep"])
        return h @ v["c"]

    found = kernels_of(fn)
    assert [(k.kind, k.count) for k in found] == [
        ("dense", 1), ("dense", L), ("elementwise", L), ("dense", 1),
    ]  # fmt: skip
    work = work_of(fn)
    assert list(work.flops * work.facts.count) == [
        2 * B * M * N, L * 2 * B * N * N, 0, 2 * B * N * K,
    ]  # fmt: skip
    assert list(work.weights) == [M * N, N * N, 0, N * K]  # one turn's


def test_nested_scans_multiply():
    def fn(v, x):
        def outer(h, _):
            return lax.scan(lambda g, w: (g @ w, None), h, v["deep"])[0] @ v["b"], None

        return lax.scan(outer, x @ v["a"], None, length=3)[0] @ v["c"]

    assert [k.count for k in kernels_of(fn)] == [1, 3 * L, 3, 1]


def test_a_turn_of_a_scan_reads_one_entry():
    """Not the whole stack of T entries in each of T turns."""
    t = 11

    def fn(v, xs):
        def turn(h, x):
            return jnp.tanh(x @ v["a"] + h @ v["b"]), h

        return lax.scan(turn, jnp.zeros((B, N)), xs)[1] @ v["c"]

    work = work_of(fn, struct(t, B, M))
    assert list(work.facts.count) == [t, t, t, 1]
    assert list(work.read) == [B * M, B * N, 2 * B * N, t * B * N]
    assert list(work.written) == [B * N, B * N, B * N, t * B * K]


@pytest.mark.parametrize("order", [1, -1])
def test_a_cond_takes_its_dearest_branch(order):
    def fn(v, x):
        branches = [jnp.sin, lambda h: jax.nn.relu(h @ v["b"]) @ v["b"]]
        h = x @ v["a"]
        return lax.cond(h.sum() > 0, *branches[::order], h) @ v["c"]

    assert kinds(fn) == ["dense", "reduce", "dense", "elementwise", "dense", "dense"]


def test_a_while_counts_once():
    def fn(v, x):
        h = lax.while_loop(lambda h: h.sum() > 1.0, lambda h: jnp.tanh(h @ v["b"]), x @ v["a"])
        return h @ v["c"]

    assert [(k.kind, k.count) for k in kernels_of(fn)] == [
        ("dense", 1), ("reduce", 1), ("dense", 1), ("elementwise", 1), ("dense", 1),
    ]  # fmt: skip


# What a kernel does


def test_a_product_by_hand():
    """[B, M] @ [M, N]: whichever side the weights stand on."""
    right = work_of(lambda v, x: (x @ v["a"]) @ v["c"])
    left = work_of(lambda v, x: v["c"].T @ (v["a"].T @ x), struct(M, B))
    for work in (right, left):
        assert list(work.facts.kind) == ["dense", "dense"]
        for name, expected in {
            "flops": [2 * B * M * N, 2 * B * N * K],
            "read": [B * M, B * N],
            "written": [B * N, B * K],
            "weights": [M * N, N * K],
            "in_channels": [M, N],
            "out_channels": [N, K],
            "positions": [B, B],
            "batches": [1, 1],
        }.items():
            assert list(getattr(work, name)) == expected, name
    assert list(right.elements) == [B * M + B * N + M * N, B * N + B * K + N * K]
    assert list(right.bytes_read) == [4 * (B * M + M * N), 4 * (B * N + N * K)]
    assert list(right.bytes_written) == [4 * B * N, 4 * B * K]
    assert right.parameters == M * N + N * N + N * K + L * N * N + N


def test_a_constant_on_one_side_is_a_weight():
    work = work_of(lambda v, x: (x @ v["a"]) @ jnp.ones((N, K)))
    assert list(work.facts.kind) == ["dense", "dense"]
    assert list(work.weights) == [M * N, N * K]


def test_a_batched_product_by_hand():
    t, h, d = 5, 3, 4

    def fn(v, x):
        q, k = x @ v["q"], x @ v["k"]
        return jnp.einsum("bqhd,bkhd->bhqk", q.reshape(B, t, h, d), k.reshape(B, t, h, d))

    variables = {"q": struct(M, h * d), "k": struct(M, h * d)}
    work = work_of(fn, struct(B, t, M), variables=variables)
    at = list(work.facts.kind).index("product")
    assert work.flops[at] == 2 * B * h * t * t * d
    assert (work.batches[at], work.positions[at]) == (B * h, t)
    assert (work.in_channels[at], work.out_channels[at]) == (d, t)
    assert (work.read[at], work.weights[at]) == (2 * B * t * h * d, 0)


def test_a_convolution_by_hand():
    variables = {"stem": struct(1, 1, 2, N), "k": struct(3, 5, N, K), "last": struct(1, 1, K, 2)}

    def fn(v, x):
        y = lax.conv_general_dilated(
            conv(x, v["stem"]), v["k"], (2, 1), "VALID", dimension_numbers=LAYOUT
        )
        return conv(y, v["last"])

    work = work_of(fn, struct(B, 11, 13, 2), variables=variables)
    h, w = 5, 9
    assert work.facts.window[1] == 15
    assert (work.facts.height[1], work.facts.width[1]) == (h, w)
    assert (work.facts.in_height[1], work.facts.in_width[1]) == (11, 13)
    assert (work.in_channels[1], work.out_channels[1], work.positions[1]) == (N, K, B * h * w)
    assert work.flops[1] == 2 * B * h * w * 15 * N * K
    assert (work.read[1], work.written[1], work.weights[1]) == (
        B * 11 * 13 * N, B * h * w * K, 15 * N * K,
    )  # fmt: skip


def test_elementwise_work_is_counted_per_operation():
    work = work_of(between(lambda v, h: jnp.exp(h * h) - 1.0))
    assert work.operations[1] == 3 * B * N
    assert work.transcendentals[1] == B * N
    assert (work.read[1], work.written[1]) == (B * N, B * N)


def test_a_reduction_works_through_what_it_reads():
    work = work_of(between(lambda v, h: h + h.sum(0, keepdims=True)))
    assert list(work.facts.kind) == ["dense", "reduce", "elementwise", "dense"]
    assert (work.operations[1], work.read[1], work.written[1]) == (B * N, B * N, N)


def test_data_that_moves_is_traffic():
    work = work_of(lambda v, x: jnp.concatenate([x @ v["a"], jnp.sin(x)], -1).T)
    assert list(work.facts.kind) == ["dense", "elementwise", "concatenate", "move"]
    assert (work.read[2], work.written[2]) == (B * (N + M), B * (N + M))
    assert list(work.flops[1:]) == [0, 0, 0]


# Kinds of convolution, at widths


def grouped_network(channels, groups):
    variables = {
        "stem": struct(1, 1, 2, channels),
        "k": struct(3, 3, channels // groups, channels),
        "last": struct(1, 1, channels, 2),
    }

    def fn(v, x):
        y = conv(conv(x, v["stem"]), v["k"], feature_group_count=groups)
        return conv(jax.nn.relu(y), v["last"])

    return traced(fn, struct(B, 4, 4, 2), variables=variables)


def kind_at(graph, **widths):
    load = workload_of(graph)
    vector = np.asarray([widths.get(name, w) for name, w in graph.widths.items()], float)
    return load.at(vector).facts.kind[1]


def test_a_depthwise_convolution_of_one_channel_is_plain():
    graph = grouped_network(6, 6)
    (name,) = graph.widths
    assert [kind_at(graph, **{name: w}) for w in (6, 2, 1)] == ["depthwise conv"] * 2 + ["conv"]


def test_the_kind_of_a_grouped_convolution_depends_on_its_widths():
    """Three groups of four channels each; how many groups and channels there are may shrink."""
    graph = grouped_network(12, 3)
    groups = [name for name, width in graph.widths.items() if width == 3]
    each = [name for name, width in graph.widths.items() if width == 4]
    assert len(groups) == 1
    assert len(groups) + len(each) == len(graph.widths)
    found = {
        (g, e): kind_at(graph, **dict.fromkeys(groups, g), **dict.fromkeys(each, e))
        for g in (3, 2, 1)
        for e in (4, 2, 1)
    }
    assert {found[1, e] for e in (4, 2, 1)} == {"conv"}
    assert {found[g, e] for g in (3, 2) for e in (4, 2)} == {"grouped conv"}
    assert {found[g, 1] for g in (3, 2)} == {"depthwise conv"}
    # JAX's arrays leave the seed's kind alone.
    load = workload_of(graph)
    assert load.at(jnp.ones(len(graph.widths))).facts.kind[1] == "grouped conv"


def test_a_transposed_convolution_is_its_own_kind():
    variables = {"k": struct(3, 3, 2, N), "last": struct(1, 1, N, 2)}

    def fn(v, x):
        y = lax.conv_transpose(x, v["k"], (2, 2), "SAME", dimension_numbers=LAYOUT)
        return conv(y, v["last"])

    assert kinds(fn, struct(B, 4, 4, 2), variables=variables) == ["transposed conv", "conv"]
