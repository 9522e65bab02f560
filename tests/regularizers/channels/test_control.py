"""Loops, branches and devices: what they tie, what they pin, and that they survive resizing."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare, draw_alive
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend.core import jaxprs_in_params
from jax.extend.core.primitives import remat_p
from jax.sharding import AxisType, PartitionSpec

import morph
import regularizers as reg

M, N, K, L = 5, 7, 3, 4  # inputs, width, outputs, length
TOLERANCE = 1e-5
SHAPES = {
    "a": (M, N),
    "b": (N, K),
    "deep": (L, N, N),
    "bias": (L, N),
    "init": (2, N),
    "left": (N, 11),
    "left2": (11, N),
    "right": (N, 13),
    "right2": (13, N),
    "w": (N, N),
}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def v(rng):
    return {k: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for k, s in SHAPES.items()}


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(2, M)).astype(np.float32))


def of(v, *names):
    return {name: v[name] for name in names}


def assert_sound(fn, v, *inputs, resized, gradients=True):
    """Compact equals masked, and so many groups were resized, all exact."""
    found = compare(fn, v, *inputs, gradients=gradients)
    assert (found.resized, found.exact, found.groups) == (resized, resized, resized)
    assert found.values < TOLERANCE
    assert not gradients or found.gradients < TOLERANCE


def small(fn, v, *inputs):
    """The jaxpr of the compact function, half of every group removed."""
    graph = reg.trace_channels(fn, v, *inputs)
    arch = morph.shrink(graph, draw_alive(graph, np.random.default_rng(0), 0.5))
    assert arch.resized
    return jax.make_jaxpr(morph.compact(fn, arch))(arch.take(v), *inputs)


def equations(jaxpr, name):
    """All equations of a primitive, in the jaxpr and all that it runs."""
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == name]
    for eqn in jaxpr.eqns:
        for sub in jaxprs_in_params(eqn.params):
            found += equations(sub, name)
    return found


# scan


def layers(v, x):
    """Stacked layers: every entry is a kernel of its own."""

    def layer(h, entry):
        kernel, bias = entry
        h = jnp.tanh(h @ kernel + bias[None])
        return h, h.sum(0)

    h, seen = lax.scan(layer, x @ v["a"], (v["deep"], v["bias"]))
    return h @ v["b"], seen @ v["b"]


def backward(v, x):
    def layer(h, kernel):
        return h + jax.nn.relu(h @ kernel), h.mean()

    h, means = lax.scan(layer, x @ v["a"], v["deep"], reverse=True, unroll=2)
    return h @ v["b"], means


def closed_over(v, x):
    """The kernel is a constant of the loop, the inputs are its entries."""

    def step(h, token):
        return jnp.tanh(token @ v["a"] + h @ v["w"]), None

    return lax.scan(step, jnp.zeros((1, N)), x[:, None])[0] @ v["b"]


def learned_start(v, x):
    def step(h, token):
        h = jnp.tanh(token @ v["a"] + h)
        return h, h

    h, all_of_them = lax.scan(step, v["init"], jnp.stack([x, x * 2.0]))
    return (h + all_of_them.sum(0)) @ v["b"]


def passed_through(v, x):
    """A kernel in the carry that no step changes."""

    def step(carry, _):
        kernel, h = carry
        return (kernel, jnp.tanh(h @ kernel)), None

    return lax.scan(step, (v["w"], x @ v["a"]), None, length=3)[0][1] @ v["b"]


def one_step(v, x):
    return lax.scan(lambda h, k: (h @ k, None), x @ v["a"], v["w"][None])[0] @ v["b"]


def nested(v, x):
    def outer(h, kernel):
        h, _ = lax.scan(lambda g, _: (jnp.tanh(g @ kernel), None), h, None, length=2)
        return h, h @ v["b"]

    h, outs = lax.scan(outer, x @ v["a"], v["deep"])
    return h @ v["b"] + outs.sum(0)


def rematerialised(v, x):
    @jax.checkpoint
    def block(h, kernels):
        return lax.scan(lambda g, k: (jnp.tanh(g @ k), None), h, kernels)[0]

    return block(x @ v["a"], v["deep"]) @ v["b"]


def branching(v, x):
    def step(h, kernel):
        return lax.cond(h.sum() > 0, lambda h: jnp.tanh(h @ kernel), jnp.sin, h), None

    return lax.scan(step, x @ v["a"], v["deep"])[0] @ v["b"]


SCANS = {
    layers: ("a", "b", "deep", "bias"),
    backward: ("a", "b", "deep"),
    closed_over: ("a", "b", "w"),
    learned_start: ("a", "b", "init"),
    passed_through: ("a", "b", "w"),
    one_step: ("a", "b", "w"),
    nested: ("a", "b", "deep"),
    rematerialised: ("a", "b", "deep"),
    branching: ("a", "b", "deep"),
}


@pytest.mark.parametrize("fn", SCANS, ids=lambda fn: fn.__name__)
def test_the_carry_of_a_scan_is_one_width(fn, v, x):
    v = of(v, *SCANS[fn])
    graph = reg.trace_channels(fn, v, x)
    (name,) = graph.groups  # of the first that is used
    assert graph.widths == {name: N}
    assert [variable.axes[-1] for variable in graph.variables.values()].count(name) == len(v) - 1
    assert_sound(fn, v, x, resized=1)


@pytest.mark.parametrize("fn", SCANS, ids=lambda fn: fn.__name__)
def test_a_scan_stays_a_scan(fn, v, x):
    v = of(v, *SCANS[fn])
    before = equations(jax.make_jaxpr(fn)(v, x).jaxpr, "scan")
    after = equations(small(fn, v, x).jaxpr, "scan")
    kept = [[eqn.params[p] for p in ("length", "reverse", "unroll")] for eqn in before]
    assert kept
    assert [[eqn.params[p] for p in ("length", "reverse", "unroll")] for eqn in after] == kept


def test_remat_around_a_scan_and_cond_inside_one_stay(v, x):
    assert equations(small(rematerialised, of(v, "a", "b", "deep"), x).jaxpr, remat_p.name)
    assert equations(small(branching, of(v, "a", "b", "deep"), x).jaxpr, "cond")


def test_the_stacked_axis_is_pinned_and_says_so(v, x):
    graph = reg.trace_channels(layers, of(v, "a", "b", "deep", "bias"), x)
    assert graph.variables["deep"].axes == (L, "a", "a")
    assert f"axis 0: {L}, fixed: stacks what a loop takes one by one" in graph.explain("deep")
    assert graph.variables["deep"].produces == {0, 2}
    assert graph.variables["deep"].consumes == {0, 1}


def test_entries_that_are_not_kernels_carry_their_width_out_again(v, x):
    """What is stacked by one loop and taken apart by the next keeps its width."""

    def fn(v, x):
        _, ys = lax.scan(lambda c, e: (c, e @ v["a"]), 0.0, x[:, None])
        _, zs = lax.scan(lambda c, e: (c, jnp.tanh(e)), 0.0, ys)
        return zs[:, 0] @ v["b"]

    assert_sound(fn, of(v, "a", "b"), x, resized=1)


def test_a_carry_that_becomes_an_output_is_pinned(v, x):
    graph = reg.trace_channels(
        lambda v, x: lax.scan(lambda h, k: (h @ k, None), x @ v["a"], v["deep"])[0],
        of(v, "a", "deep"),
        x,
    )
    assert graph.groups == {}
    assert "axis 1: 7, fixed: axis of an output" in graph.explain("a")


@pytest.mark.parametrize(
    "grows",
    [lambda c, h: c + jnp.exp(h), lambda c, h: c + h + 1.0, lambda c, h: jnp.cos(c) + h],
    ids=["exp", "one", "cos"],
)
@pytest.mark.parametrize("loop", ["scan", "while"])
def test_a_carry_that_is_zero_only_at_first_is_not_taken_for_zero(grows, loop, v, x):
    """Summed by hand, where no kernel's rows can be zeroed in its stead."""

    def fn(v, x):
        h = x @ v["a"]
        if loop == "scan":
            c = lax.scan(lambda c, _: (grows(c, h), None), jnp.zeros((2, N)), None, length=3)[0]
        else:
            step = lambda s: (s[0] + 1, grows(s[1], h))  # noqa: E731
            c = lax.while_loop(lambda s: s[0] < 3, step, (0, jnp.zeros((2, N))))[1]
        return jnp.square(c).sum(1), h @ v["b"]

    v = of(v, "a", "b")
    graph = reg.trace_channels(fn, v, x)
    assert not graph.groups["a"].exact
    assert "not zero where reduce_sum consumes them" in graph.groups["a"].why_inexact
    assert_sound_if_closed(fn, v, x)


def assert_sound_if_closed(fn, v, x):
    """The same carry into a kernel: its rows become producers, and the group exact."""

    def into_a_kernel(v, x):
        h = x @ v["a"]
        return lax.scan(lambda c, _: (c + jnp.exp(h), None), h, None, length=2)[0] @ v["b"]

    graph = reg.trace_channels(into_a_kernel, v, x)
    assert graph.groups["a"].exact
    assert 0 in graph.variables["b"].produces
    assert_sound(into_a_kernel, v, x, resized=1)


# while


def repeated(v, x):
    def step(state):
        i, h = state
        return i + 1, jnp.tanh(h @ v["w"])

    return lax.while_loop(lambda s: (s[0] < 3) & (s[1].sum() < 99.0), step, (0, x @ v["a"]))[1]


def test_the_carry_of_a_while_is_one_width(v, x):
    def fn(v, x):
        return repeated(v, x) @ v["b"]

    v = of(v, "a", "b", "w")
    graph = reg.trace_channels(fn, v, x)
    assert graph.widths == {"a": N}
    assert graph.variables["w"].axes == ("a", "a")
    assert_sound(fn, v, x, resized=1, gradients=False)
    assert len(equations(small(fn, v, x).jaxpr, "while")) == 1


def test_fori_loop(v, x):
    def fn(v, x):
        return lax.fori_loop(0, x.shape[0], lambda i, h: h + x[i] @ v["a"], jnp.zeros(N)) @ v["b"]

    assert_sound(fn, of(v, "a", "b"), x, resized=1)


# cond and switch


def branches(v, x):
    """Two branches with widths of their own inside."""
    return lax.cond(
        x.sum() > 0,
        lambda h: h + jax.nn.relu(h @ v["left"]) @ v["left2"],
        lambda h: jax.nn.relu(h @ v["right"]) @ v["right2"],
        x @ v["a"],
    )


def switched(v, x):
    index = (x[0, 0] > 0).astype(int) + (x[0, 1] > 0).astype(int)
    run = [
        lambda h: jax.nn.relu(h @ v["left"]) @ v["left2"],
        jnp.sin,
        lambda h: jax.nn.relu(h @ v["right"]) @ v["right2"],
    ]
    return lax.switch(index, run, x @ v["a"])


@pytest.mark.parametrize("fn", [branches, switched])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_branches_tie_what_they_share_and_keep_their_own(fn, sign, v, x):
    def whole(v, x):
        return fn(v, x) @ v["b"]

    v = of(v, "a", "b", "left", "left2", "right", "right2")
    x = sign * jnp.abs(x)  # takes one branch, then the other
    graph = reg.trace_channels(whole, v, x)
    assert graph.widths == {"a": N, "left": 11, "right": 13}
    assert graph.variables["left2"].axes == ("left", "a")
    assert graph.variables["right2"].axes == ("right", "a")
    assert_sound(whole, v, x, resized=3)
    (eqn,) = equations(small(whole, v, x).jaxpr, "cond")
    assert len(eqn.params["branches"]) == (2 if fn is branches else 3)


def test_one_branch_that_is_not_zero_is_enough(v, x):
    def fn(v, x):
        h = x @ v["a"]
        y = lax.cond(x.sum() > 0, jnp.sin, jnp.cos, h)
        return jnp.square(y).sum(1), h @ v["b"]

    assert not reg.trace_channels(fn, of(v, "a", "b"), x).groups["a"].exact


# Devices


def test_shard_map_on_one_device(v, x):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    @jax.shard_map(mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=(spec, PartitionSpec()))
    def fn(v, x):
        h = jax.nn.relu(x @ v["a"])
        return h @ v["b"], lax.psum(h.sum(0) @ v["b"], "data")

    assert_sound(fn, of(v, "a", "b"), x, resized=1)
    assert len(equations(small(fn, of(v, "a", "b"), x).jaxpr, "shard_map")) == 1


FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from corpus.soundness import compare
import regularizers as reg

assert jax.device_count() == 4
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
shapes = {"a": (5, 8), "b": (8, 3), "out": (8, 3)}
v = {k: jax.device_put(rng.normal(size=s).astype(np.float32)) for k, s in shapes.items()}
x = jax.device_put(rng.normal(size=(8, 5)).astype(np.float32))

def local(v, x):
    h = jnp.tanh(x @ v["a"])
    mean = jax.lax.psum(h.sum(0, keepdims=True), "data") / 8
    return (h - mean) @ v["b"]

fn = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
data = {k: v[k] for k in ("a", "b")}
found = compare(fn, data, x)
assert (found.resized, found.exact) == (1, 1), found
assert found.values < 1e-5 and found.gradients < 1e-5, found

def split(v, x):
    @jax.shard_map(mesh=mesh, in_specs=(P(None, "data"), P()), out_specs=P(None, "data"))
    def first(a, x):
        return x @ a
    return first(v["a"], x) @ v["b"]

graph = reg.trace_channels(split, data, x)
assert graph.groups == {}
assert "axis 1: 8, fixed: divided among devices" in graph.explain("a"), graph.explain("a")
print("sound")
"""


def test_data_parallel_on_four_devices():
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    run = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], env=env, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "sound", run.stderr


# Calls whose meaning is that of their jaxpr


def test_composite(v, x):
    @functools.partial(lax.composite, name="tests.act")
    def act(h):
        return h * jnp.tanh(h)

    def fn(v, x):
        return act(x @ v["a"]) @ v["b"]

    jaxpr = jax.make_jaxpr(fn)(of(v, "a", "b"), x).jaxpr
    assert equations(jaxpr, "composite")
    assert_sound(fn, of(v, "a", "b"), x, resized=1, gradients=False)


def test_custom_vmap(v, x):
    @custom_vmap
    def act(h):
        return jnp.sin(h) * 2.0

    @act.def_vmap
    def rule(axis_size, batched, h):
        return act(h), batched[0]

    def fn(v, x):
        return act(x @ v["a"]) @ v["b"]

    assert equations(jax.make_jaxpr(fn)(of(v, "a", "b"), x).jaxpr, "custom_vmap_call")
    assert_sound(fn, of(v, "a", "b"), x, resized=1, gradients=False)


def test_who_looks_at_values_sees_the_resized_ones_and_pins_nothing(v, x, capsys):
    seen = []

    def fn(v, x):
        h = x @ v["a"]
        jax.debug.callback(lambda h: seen.append(h.shape), h)
        jax.debug.print("first {}", h[:1])
        return h @ v["b"]

    v = of(v, "a", "b")
    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    assert seen == []  # tracing runs nothing
    keep = np.arange(N) % 3 == 0
    arch = morph.shrink(graph, {"a": keep})
    masked = graph.mask(v, {"a": keep})
    found = morph.compact(fn, arch)(arch.take(masked), x)
    jax.effects_barrier()
    assert seen == [(2, 3)]
    assert capsys.readouterr().out.startswith("first [[")
    np.testing.assert_allclose(found, (x @ masked["a"]) @ v["b"], atol=TOLERANCE)
