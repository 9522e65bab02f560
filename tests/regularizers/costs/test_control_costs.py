"""What loops, branches and devices cost."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import morph
import regularizers as reg
from morph.architecture.architecture import Architecture

B, M, N, K, H, L = 2, 5, 7, 3, 11, 4
ROOT = Path(__file__).parents[3]


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


VARIABLES = {
    "a": struct(M, N),
    "b": struct(N, K),
    "w": struct(N, N),
    "deep": struct(L, N, N),
    "up": struct(N, H),
    "down": struct(H, N),
    "experts": struct(3, N, N),
}
INTO, OUT, SQUARE = 2 * B * M * N, 2 * B * N * K, 2 * B * N * N  # FLOPs of single products


def whole(middle):
    return lambda v, x: middle(v, x @ v["a"]) @ v["b"]


def scanned(v, h):
    return lax.scan(lambda h, k: (jnp.tanh(h @ k), None), h, v["deep"])[0]


def nested(v, h):
    def outer(h, _):
        return lax.scan(lambda g, k: (g @ k, None), h, v["deep"])[0] @ v["w"], None

    return lax.scan(outer, h, None, length=3)[0]


def dearest(v, h):
    return lax.cond(
        h.sum() > 0, lambda h: h + jax.nn.relu(h @ v["up"]) @ v["down"], lambda h: h @ v["w"], h
    )


def chained(v, h):
    return lax.switch(
        h.sum().astype(int),
        [jnp.sin, lambda h: h @ v["w"], lambda h: (h @ v["w"]) @ v["w"]],
        h,
    )


def branch_in_a_branch(v, h):
    """The outer branch with the dearer inner branch is the dearest."""

    def inner(h):
        return lax.cond(h[0, 0] > 0, lambda h: scanned(v, h), lambda h: h @ v["w"], h)

    return lax.cond(h.sum() > 0, inner, lambda h: (h @ v["w"]) @ v["w"], h)


def branch_in_a_loop(v, h):
    return lax.scan(lambda h, _: (dearest(v, h), None), h, None, length=3)[0]


def repeated(v, h):
    return lax.while_loop(lambda h: h.sum() < 9.0, lambda h: h @ v["w"], h)


def condition(v, h):
    return lax.while_loop(lambda h: (h @ v["w"]).sum() < 9.0, lambda h: h + 1.0, h)


def loop_in_a_while(v, h):
    return lax.while_loop(lambda h: h.sum() < 9.0, lambda h: scanned(v, h), h)


def rematerialised(v, h):
    return jax.checkpoint(scanned)(v, h)


def ragged(v, h):
    return lax.ragged_dot(h, v["experts"], jnp.asarray([1, 0, 1]))


def one_device(v, h):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    run = jax.shard_map(
        lambda w, h: h @ w, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec("data")
    )
    return run(v["w"], h)


MIDDLES = {
    scanned: L * SQUARE,
    nested: 3 * (L + 1) * SQUARE,
    dearest: 2 * (2 * B * N * H),
    chained: 2 * SQUARE,
    branch_in_a_branch: L * SQUARE,
    branch_in_a_loop: 3 * 2 * (2 * B * N * H),
    repeated: SQUARE,
    condition: SQUARE,
    loop_in_a_while: L * SQUARE,
    rematerialised: L * SQUARE,
    ragged: SQUARE,  # every row meets one kernel
    one_device: SQUARE,
}


@pytest.fixture(params=MIDDLES, ids=lambda fn: fn.__name__)
def middle(request):
    return request.param


def graph_of(middle):
    return reg.trace_channels(whole(middle), VARIABLES, struct(B, M))


def test_flops_by_hand(middle):
    assert reg.flops(graph_of(middle))() == INTO + MIDDLES[middle] + OUT


def test_architecture_agrees_with_the_cost(middle):
    graph = graph_of(middle)
    cost = reg.flops(graph)
    seed = Architecture.of_seed(graph)
    assert sum(seed.flops().values()) == cost()
    alive = {name: np.arange(group.width) % 2 == 0 for name, group in graph.groups.items()}
    arch = morph.shrink(graph, alive)
    assert arch.resized
    assert sum(arch.flops().values()) == cost(arch.widths)
    totals = arch.to_json()["totals"]
    assert (totals["seed_flops"], totals["flops"]) == (cost(), cost(arch.widths))
    rows = {}
    for row in cost.table(arch.widths):
        rows[row.layer] = rows.get(row.layer, 0.0) + row.cost
    assert rows == pytest.approx(arch.flops())


def test_at_other_widths_the_scan_counts_its_length():
    cost = reg.flops(graph_of(scanned))
    (name,) = cost.groups
    assert cost({name: 2}) == 2 * B * (M * 2 + L * 2 * 2 + 2 * K)
    slope = jax.grad(cost)({name: 2.0})[name]
    assert slope == pytest.approx(2 * B * (M + L * 2 * 2 + K))


def test_parameters_of_stacked_layers():
    graph = graph_of(scanned)
    (name,) = graph.groups
    size = reg.model_size(graph)
    used = sum(np.prod(VARIABLES[k].shape) for k in ("a", "b", "deep"))
    unused = sum(np.prod(VARIABLES[k].shape) for k in ("w", "up", "down", "experts"))
    assert size() == used + unused
    assert size({name: 2}) == M * 2 + 2 * K + L * 2 * 2 + unused


def test_a_scan_of_no_length_costs_nothing():
    def never(v, h):
        return lax.scan(lambda h, _: (h @ v["w"], None), h, None, length=0)[0]

    assert reg.flops(graph_of(never))() == INTO + OUT


def test_the_dearest_branch_is_that_at_the_seeds_widths():
    """Also where the other one is dearer after shrinking; the choice stays, as documented."""
    cost = reg.flops(graph_of(dearest))
    assert cost.groups["up"] == H
    assert cost({"up": 1}) == INTO + 2 * (2 * B * N * 1) + OUT
    assert cost({"up": 1}) < INTO + SQUARE + OUT


FOUR_DEVICES = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P
import regularizers as reg
from morph.architecture.architecture import Architecture

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
fn = jax.shard_map(
    lambda v, x: (x @ v["a"]) @ v["b"], mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
)
struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
graph = reg.trace_channels(fn, {"a": struct(5, 7), "b": struct(7, 3)}, struct(8, 5))
assert sum(Architecture.of_seed(graph).flops().values()) == reg.flops(graph)()
print(reg.flops(graph)())
"""


def test_every_device_counts():
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], env=env, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == str(2.0 * 8 * (5 * 7 + 7 * 3)), run.stderr
