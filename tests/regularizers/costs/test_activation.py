"""Activation memory: by hand, and against a simulation that goes step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import regularizers as reg

B, M, N, K, L = 2, 5, 7, 3, 4
LAYOUT = ("NHWC", "HWIO", "NHWC")
WEIGHTS = {"a": (M, N), "b": (N, N), "c": (N, K), "deep": (L, N, N)}


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def traced(fn, *inputs, **weights):
    shapes = weights or WEIGHTS
    variables = {name: struct(*shape) for name, shape in shapes.items()}
    return reg.trace_channels(fn, variables, *(inputs or (struct(B, M),)))


def total_and_peak(fn, *inputs, **weights):
    """In elements of four bytes."""
    graph = traced(fn, *inputs, **weights)
    costs = reg.activation_bytes(graph), reg.activation_bytes(graph, peak=True)
    return tuple(cost() / 4 for cost in costs)


X, H, Y = B * M, B * N, B * K  # elements of the input, of a hidden array, of the output


# By hand. The input is the caller's and stays to the end.


def test_a_chain_overwrites_itself():
    """Relu and tanh write where the product wrote; what a product reads is freed after it."""

    def fn(v, x):
        h = jnp.tanh(jax.nn.relu(x @ v["a"]))
        return jax.nn.relu(h @ v["b"]) @ v["c"]

    assert total_and_peak(fn) == (X + H + H + Y, X + H + H)


def test_a_product_needs_its_operand_and_its_result():
    assert total_and_peak(lambda v, x: x @ v["a"] @ v["c"]) == (X + H + Y, X + H + Y)


def test_the_input_is_not_overwritten():
    assert total_and_peak(lambda v, x: jnp.tanh(x) @ v["a"]) == (X + X + H, X + X + H)
    assert total_and_peak(lambda v, x: (jnp.tanh(x), x @ v["a"])) == (X + X + H, X + X + H)


def test_a_residual_keeps_the_shortcut():
    def fn(v, x):
        h = x @ v["a"]
        y = jax.nn.relu(h @ v["b"]) @ v["b"]  # h lives beside both
        return jax.nn.relu(h + y) @ v["c"]  # the sum overwrites

    assert total_and_peak(fn) == (X + 3 * H + Y, X + 3 * H)


def test_what_is_needed_later_is_not_overwritten():
    def fn(v, x):
        h = x @ v["a"]
        return (jnp.tanh(h) @ v["b"] + h) @ v["c"]

    # h, its tanh in new memory, the product; then the sum in the memory of the product or h.
    assert total_and_peak(fn) == (X + 3 * H + Y, X + 3 * H)


def test_what_the_function_returns_lives_to_the_end():
    def fn(v, x):
        h = x @ v["a"]
        return h, jnp.tanh(h) @ v["b"] @ v["b"] @ v["c"]

    assert total_and_peak(fn) == (X + 4 * H + Y, X + 3 * H)


def test_a_concatenation_copies():
    def fn(v, x):
        h = x @ v["a"]
        return jnp.concatenate([h @ v["b"], h @ v["b"]], -1).sum(-1, keepdims=True)

    # h, two towers (h goes with the second), both and their concatenation, its sum.
    assert total_and_peak(fn) == (X + 3 * H + 2 * H + B, X + 4 * H)


def test_a_widening_network_peaks_at_its_widest():
    def fn(v, x):
        return jax.nn.relu(jax.nn.relu(x @ v["up"]) @ v["down"]) @ v["last"]

    wide = B * 20
    assert total_and_peak(fn, up=(M, 20), down=(20, N), last=(N, K)) == (
        X + wide + H + Y,
        X + wide + H,
    )


def conv(x, kernel, stride=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT
    )  # fmt: skip


def test_a_unet_keeps_its_skip():
    def fn(v, x):
        skip = jax.nn.relu(conv(x, v["first"]))  # 8 x 8 x 5
        low = jax.nn.relu(conv(skip, v["down"], 2))  # 4 x 4 x 7
        low = jax.nn.relu(conv(low, v["middle"]))  # 4 x 4 x 7
        up = lax.conv_transpose(low, v["up"], (2, 2), "SAME", dimension_numbers=LAYOUT)  # 8 x 8 x 5
        return conv(jnp.concatenate([skip, up], -1), v["last"])  # 8 x 8 x 10 -> 8 x 8 x 1

    shapes = {
        "first": (3, 3, 2, 5), "down": (3, 3, 5, 7), "middle": (3, 3, 7, 7), "up": (2, 2, 7, 5),
        "last": (1, 1, 10, 1),
    }  # fmt: skip
    x, skip, low, up, both, out = 64 * 2, 64 * 5, 16 * 7, 64 * 5, 64 * 10, 64
    assert total_and_peak(fn, struct(1, 8, 8, 2), **shapes) == (
        x + skip + low + low + up + both + out,
        x + skip + up + both,
    )


def test_densenet_keeps_every_feature():
    def fn(v, x):
        for k in range(3):
            x = jnp.concatenate([x, jax.nn.relu(x @ v[f"grow{k}"])], -1)
        return x @ v["last"]

    shapes = {f"grow{k}": (M + 3 * k, 3) for k in range(3)} | {"last": (M + 9, K)}
    new, first, second, third = B * 3, B * (M + 3), B * (M + 6), B * (M + 9)
    assert total_and_peak(fn, **shapes) == (
        X + 3 * new + first + second + third + Y,
        X + second + new + third,
    )


def test_attention_peaks_at_its_weights():
    t, d = 11, 3

    def fn(v, x):
        q, k, u = x @ v["q"], x @ v["k"], x @ v["u"]
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        return jnp.einsum("bqk,bkd->bqd", jnp.tanh(scores), u) @ v["o"]

    shapes = {"q": (M, d), "k": (M, d), "u": (M, d), "o": (d, K)}
    x, one, scores, out = B * t * M, B * t * d, B * t * t, B * t * K
    found = total_and_peak(fn, struct(B, t, M), **shapes)
    graph = traced(fn, struct(B, t, M), **shapes)
    moves = [r for r in reg.activation_bytes(graph).table() if "transpose" in r.detail]
    assert found[0] == x + 3 * one + scores + one + out + sum(r.cost for r in moves) / 4
    assert found[1] == x + 3 * one + scores


# Loops and branches


def test_a_scan_over_layers():
    """Its carry stays where it began, beside the next one."""

    def fn(v, x):
        return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ v["a"], v["deep"])[0] @ v["c"]

    assert total_and_peak(fn) == (X + 2 * H + Y, X + 2 * H)


def test_a_scan_over_time_stacks_its_results():
    """Beside the state that it begins with, all entries, all results, and one turn's arrays."""
    t = 11

    def fn(v, xs):
        def turn(h, x):
            y = jnp.tanh(x @ v["a"] + h @ v["b"])
            return y, y

        return lax.scan(turn, jnp.zeros((B, N)), xs)[1].sum(0) @ v["c"]

    xs, stack = t * B * M, t * B * N
    found = total_and_peak(fn, struct(t, B, M))
    assert found == (xs + H + stack + 2 * H + H + Y, xs + stack + H + 2 * H)


def test_a_loop_does_not_overwrite_what_its_next_turn_reads():
    def fn(v, x):
        h = x @ v["a"]
        return lax.scan(lambda c, _: (c + h, None), jnp.zeros((B, N)), length=3)[0] @ v["c"]

    # h, the state, and the next state beside it.
    assert total_and_peak(fn) == (X + 3 * H + Y, X + 3 * H)


def test_a_loop_does_not_overwrite_what_it_returns():
    def fn(v, x):
        def turn(h, _):
            y = h @ v["b"]
            return jnp.tanh(y), y

        h, ys = lax.scan(turn, x @ v["a"], length=3)
        return (h + ys.sum(0)) @ v["c"]

    found = total_and_peak(fn)
    assert found[1] == X + 3 * H + 3 * H  # the carry, its stack, y, and its tanh


def test_what_a_loop_reads_lives_as_long_as_the_loop():
    def fn(v, x):
        h = jnp.tanh(x @ v["a"])

        def turn(c, w):
            return ((c + h) @ w) @ w @ w, None

        return lax.scan(turn, x @ v["a"], v["deep"])[0] @ v["c"]

    # h, the carry, and two of the turn's own.
    assert total_and_peak(fn)[1] == X + 4 * H


def test_the_result_of_a_branch_lives_to_its_last_use():
    def cond(v, h):
        return lax.cond(h.sum() > 0, lambda h: h @ v["b"], lambda h: h, h)

    def returned(v, x):
        kept = cond(v, x @ v["a"])
        return kept, x @ v["a"] @ v["b"] @ v["c"]

    def used(v, x):
        kept = cond(v, x @ v["a"])
        return (x @ v["a"] @ v["b"] + kept) @ v["c"]

    scalar = 1  # the sum
    assert total_and_peak(returned) == (X + 4 * H + Y + scalar, X + 3 * H)
    assert total_and_peak(used) == (X + 4 * H + Y + scalar, X + 3 * H)


def test_a_branch_that_hands_on_what_it_got_takes_no_memory():
    def fn(v, x):
        h = x @ v["a"]
        same, other = lax.cond(
            h.sum() > 0, lambda h: (h, h @ v["b"]), lambda h: (jnp.sin(h), h), h
        )  # fmt: skip
        return (same + other) @ v["b"] @ v["b"] @ v["c"]

    # In the branch h and the product; the sum overwrites one of them, and both are gone then.
    assert total_and_peak(fn) == (X + 4 * H + Y + 1, X + 2 * H)


# Types


@pytest.mark.parametrize(("dtype", "size"), [("int8", 1), ("float16", 2), ("float64", 8)])
def test_as_if_of_another_type(dtype, size):
    graph = traced(lambda v, x: jnp.tanh(x @ v["a"]) @ v["c"])
    for peak in (False, True):
        own = reg.activation_bytes(graph, peak=peak)
        other = reg.activation_bytes(graph, peak=peak, dtype=dtype)
        assert other() == own() * size / 4
        assert (own.unit, other.unit) == ("B", "B")


def test_arrays_count_in_their_own_type():
    def fn(v, x):
        return (x @ v["a"]).astype(jnp.bfloat16).T

    assert reg.activation_bytes(traced(fn))() == 4 * X + 4 * H + 2 * H + 2 * H


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match=r"dtype must be the name of a type.*'float33'"):
        reg.activation_bytes(traced(lambda v, x: x @ v["a"]), dtype="float33")


# Random programs: allocate and free, one step at a time


def random_program(rng):
    """Instructions (name, operation, operands, width); nothing in it can be fused."""
    widths, made = {"x": M, "v": N}, ["x", "v"]
    elementwise, program = set(), [("v", "dense", ["x"], N)]
    for k in range(rng.integers(3, 12)):
        operation = rng.choice(["dense", "relu", "add", "concatenate"])
        firm = [name for name in made if name not in elementwise]
        if operation == "dense":
            operands, width = [rng.choice(made)], int(rng.choice([3, 5, 7]))
        elif operation == "relu":
            operands = [rng.choice(firm)]
            width = widths[operands[0]]
        elif operation == "add":
            first = rng.choice(firm)
            second = rng.choice([name for name in firm if widths[name] == widths[first]])
            operands, width = [first, second], widths[first]
        else:
            operands = list(rng.choice(made, 2))
            width = sum(widths[name] for name in operands)
        name = f"v{k}"
        program.append((name, str(operation), [str(o) for o in operands], width))
        widths[name] = width
        made.append(name)
        if operation in ("relu", "add"):
            elementwise.add(name)
    read = {operand for _, _, operands, _ in program for operand in operands}
    returned = [name for name in made[1:] if name not in read or rng.random() < 0.1]
    return program, widths, returned


def function_of(program, returned):
    def fn(v, x):
        env = {"x": x}
        for name, operation, operands, _ in program:
            given = [env[operand] for operand in operands]
            if operation == "dense":
                env[name] = given[0] @ v[name]
            elif operation == "relu":
                env[name] = jnp.maximum(given[0], 0.0)
            elif operation == "add":
                env[name] = given[0] + given[1]
            else:
                env[name] = jnp.concatenate(given, -1)
        return [env[name] for name in returned]

    return fn


def simulated(program, widths, returned):
    """Total and peak, in elements: which arrays are held after each instruction."""
    memory = {"x": "x"}  # where every array lives
    held, most, allocated = {"x"}, widths["x"], widths["x"]
    for k, (name, operation, operands, width) in enumerate(program):
        later = {operand for _, _, given, _ in program[k + 1 :] for operand in given}
        needed = later | {"x", *returned}
        free = [o for o in operands if o not in needed and widths[o] == width]
        if operation in ("relu", "add") and free:
            memory[name] = memory[free[0]]
        else:
            memory[name] = name
            allocated += width
        held.add(name)
        most = max(most, sum(widths[where] for where in {memory[o] for o in held}))
        held = {o for o in held if o in needed}
    return B * allocated, B * most


@pytest.mark.parametrize("seed", range(30))
def test_random_programs_against_a_simulation(seed):
    program, widths, returned = random_program(np.random.default_rng(seed))
    shapes = {
        name: (widths[operands[0]], width)
        for name, operation, operands, width in program
        if operation == "dense"
    }
    found = total_and_peak(function_of(program, returned), **shapes)
    assert found == simulated(program, widths, returned)


# The smooth form


def network():
    def fn(v, x):
        h = jnp.tanh(x @ v["a"])
        y = jax.nn.relu(h @ v["up"]) @ v["down"]
        return jnp.concatenate([h + y, y], -1) @ v["c"]

    return traced(fn, a=(M, N), up=(N, 11), down=(11, N), c=(2 * N, K))


def test_smooth_is_the_norm_of_all_moments():
    """At most the 32-norm's share above the peak: it sees no more moments than there are."""
    graph = network()
    peak = reg.activation_bytes(graph, peak=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        widths = {name: int(rng.integers(1, w + 1)) for name, w in graph.widths.items()}
        events = 2 * len(peak.lines)
        assert peak(widths) <= peak.smooth(widths) <= peak(widths) * events ** (1 / 32)


def test_smooth_peak_by_hand():
    """What is held after every array that comes or goes: x, h, y; h, x, y."""
    peak = reg.activation_bytes(traced(lambda v, x: x @ v["a"] @ v["c"]), peak=True)
    moments = 4.0 * np.array([X, X + H, X + H + Y, X + Y, Y, 0])
    assert peak.smooth() == pytest.approx((moments**32).sum() ** (1 / 32), rel=1e-12)


@pytest.mark.parametrize("peak", [False, True])
def test_gradient_of_smooth_equals_finite_differences(peak):
    graph = network()
    cost = reg.activation_bytes(graph, peak=peak)
    step = 1e-4
    for (name, width), slope in zip(
        graph.widths.items(), cost.marginal([*graph.widths.values()]), strict=True
    ):
        above, below = cost.smooth({name: width + step}), cost.smooth({name: width - step})
        assert above > below
        np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-4)


def test_exact_peak_books_what_is_held_then():
    """The lines add up to the peak, and what is not held at that time has none of it."""
    graph = network()
    for peak in (False, True):
        cost = reg.activation_bytes(graph, peak=peak)
        assert sum(row.cost for row in cost.table()) == cost()
    table = {row.layer: row.cost for row in cost.table()}
    # The concatenation, what it reads, and the input are the most.
    assert table["c"] == table["up"] == 0.0
    assert table["(inputs)"] == 4 * X
    assert cost() == 4 * (X + 2 * H + 2 * H)


def test_jax_and_numpy_agree():
    graph = network()
    for peak in (False, True):
        cost = reg.activation_bytes(graph, peak=peak)
        widths = jnp.asarray([*graph.widths.values()], jnp.float32)
        assert float(jax.jit(cost.of_vector)(widths)) == cost()
