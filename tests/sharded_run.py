"""Arrays that are divided stay divided; prints one JSON object.

`tests/morph/architecture/test_picking.py` runs it, with
XLA_FLAGS=--xla_force_host_platform_device_count=8, which JAX has to see before it starts.
"""

import json
from functools import partial

# The test says `--xla_force_host_platform_device_count=8`.
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import morph
import regularizers as reg
from morph.architecture import picking

SHAPES = {"a": (6, 32), "shift": (32,), "b": (32, 24), "z": (24, 8)}
FSDP = {"a": P(None, "d"), "shift": P("d"), "b": P("d", None), "z": P("d", None)}
TENSOR = {"a": P(None, "d"), "shift": P("d"), "b": P("d", None), "z": P(None, None)}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
RNG = np.random.default_rng(0)
START = {n: (RNG.normal(size=s) / 3).astype("f") for n, s in SHAPES.items()}
X, Y = RNG.normal(size=(16, 6)).astype("f"), RNG.normal(size=(16, 8)).astype("f")
KEPT = {"a": np.arange(32) % 2 == 0, "b": np.arange(24) % 5 < 2}  # 16 and 10 channels


def mesh_of(kind):
    return jax.make_mesh((8,), ("d",), axis_types=(KINDS[kind],))


def divided(tree, mesh, specs):
    return {n: jax.device_put(leaf, NamedSharding(mesh, specs[n])) for n, leaf in tree.items()}


def fn(v, x):
    x = jnp.tanh(x @ v["a"] + v["shift"])
    return jnp.tanh(x @ v["b"]) @ v["z"]


def lies(tree):
    return {name: leaf.sharding for name, leaf in tree.items()}


def struct(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def bytes_per_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in tree.values())


def error(call):
    try:
        call()
    except morph.ArchitectureError as found:
        return str(found)
    raise AssertionError("no error")


def take(kind):
    """Every leaf of variables and states, concrete, abstract and traced, under one kind of mesh."""
    graph = reg.trace_channels(fn, START, X)
    arch = morph.shrink(graph, KEPT, round_to=8)
    mesh, found = mesh_of(kind), {"widths": arch.widths}
    for specs in (FSDP, TENSOR):
        v = divided(START, mesh, specs)
        small = arch.take({"params": v, "adam": optax.adam(0.1).init(v)})
        for part in (small["params"], small["adam"][0].mu):
            assert {n: leaf.sharding for n, leaf in part.items()} == lies(v)
        expected = arch.take(START)
        jax.tree.map(np.testing.assert_array_equal, small["params"], expected)
        for shard in small["params"]["a"].addressable_shards:
            assert shard.data.shape == (6, 16 // 8)
        assert lies(arch.take(jax.tree.map(struct, v))) == lies(v)
        with jax.set_mesh(mesh):
            traced = jax.jit(arch.take)(v)
        jax.tree.map(np.testing.assert_array_equal, traced, expected)
        # As processes do that hold a part each.
        whole, picking._assembled = picking._assembled, picking._compiled
        jax.tree.map(np.testing.assert_array_equal, arch.take(v), expected)
        assert lies(arch.take(v)) == lies(v)
        picking._assembled = whole
        assert bytes_per_device(small["params"]) < 0.6 * bytes_per_device(v)
    clones = arch.with_parents({"a": [*range(32), *range(32)]})
    wide = clones.take(divided(START, mesh, FSDP))
    jax.tree.map(np.testing.assert_allclose, wide, clones.take(START))
    uneven = morph.shrink(graph, KEPT)
    found["error"] = error(lambda: uneven.take(divided(START, mesh, FSDP)))
    found["whole"] = jax.tree.map(jnp.shape, uneven.take(START))
    return found


def train(put, put_batch):
    """Regularized, shrunk, trained on."""
    v, x, y = put(START), put_batch(X), put_batch(Y)
    graph, apply = reg.trace_channels(fn, v, x), fn
    arch = morph.shrink(graph, KEPT, round_to=8)
    kept = {n: np.isin(np.arange(w), arch.groups[n].parents) for n, w in graph.widths.items()}
    losses, sizes, state = [], [], None
    for steps in (8, 4):
        regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
        tx = reg.proximal(optax.adam(0.01), regularizer, 0.2)
        state = tx.init(v) if state is None else arch.take(state)

        @jax.jit
        def step(v, state, x, y, apply=apply, tx=tx):
            loss, slopes = jax.value_and_grad(lambda v: jnp.mean((apply(v, x) - y) ** 2))(v)
            updates, state = tx.update(slopes, state, v)
            return optax.apply_updates(v, updates), state, loss

        for _ in range(steps):
            v, state, loss = step(v, state, x, y)
            losses.append(float(loss))
        sizes.append(bytes_per_device(v))
        specs = {name: str(leaf.sharding) for name, leaf in v.items()}
        if apply is fn:
            first, apply, v = specs, morph.compact(fn, arch), arch.take(graph.mask(v, kept))
            graph = reg.trace_channels(apply, v, x)
    return {"losses": losses, "bytes": sizes, "kept": first == specs}


def both():
    mesh = mesh_of("auto")
    rows = NamedSharding(mesh, P("d"))
    return {
        "one": train(jax.device_put, jax.device_put),
        "fsdp": train(partial(divided, mesh=mesh, specs=FSDP), lambda x: jax.device_put(x, rows)),
    }


if __name__ == "__main__":
    print(json.dumps({"auto": take("auto"), "explicit": take("explicit"), "train": both()}))
