"""Blocks: residual branches and towers are found, and when they go the function stays exact."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import morph
import regularizers as reg
from morph.network import linen_network
from morph.resize.initialize import COMPILE_QUICKLY

RNG = np.random.default_rng(0)
jit = functools.partial(jax.jit, compiler_options=COMPILE_QUICKLY)


class Residual(nn.Module):
    """Two dense layers with batch norm beside a shortcut."""

    features: int

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.Dense(self.features)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
        y = nn.Dense(x.shape[-1], use_bias=False)(y)
        return x + nn.BatchNorm(use_running_average=not train)(y)


class Net(nn.Module):
    """Residual blocks (one under `remat`), attention, towers and a head."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6)(x)
        x = Residual(5)(x, train)
        x = nn.remat(Residual, static_argnums=(2,))(7)(x, train)
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=4)(nn.LayerNorm()(x))
        towers = [nn.relu(nn.Dense(4)(x)), nn.tanh(nn.Dense(3)(nn.relu(nn.Dense(5)(x))))]
        return nn.Dense(2)(jnp.concatenate([x, *towers], axis=-1))


ATTENTION = "MultiHeadDotProductAttention_0/out"
ALL = ("Residual_0", "CheckpointResidual_0", ATTENTION, "Dense_1", "Dense_2")


@pytest.fixture(scope="module")
def net():
    network = linen_network(Net())
    x = jnp.asarray(RNG.normal(size=(3, 4, 9)), jnp.float32)
    variables = jit(network.init)(jax.random.key(0), x)
    noise = jax.tree.map(lambda a: jnp.asarray(RNG.uniform(0.3, 1.0, a.shape), a.dtype), variables)
    return network, noise, x, reg.trace_channels(network.predict, noise, x[:1])


def test_blocks_are_found(net):
    *_, graph = net
    assert tuple(graph.blocks) == ALL
    first = graph.blocks["Residual_0"]
    assert first.kind == "residual"
    assert first.groups == ("Residual_0/Dense_0",)
    assert first.layers == ("Residual_0/Dense_0", "Residual_0/Dense_1")
    assert {path.split("/")[-1] for path in first.switch} == {"scale", "bias"}
    assert all("BatchNorm_1" in path for path in first.switch)
    assert any(path.startswith("batch_stats/") for path in first.variables)
    attention = graph.blocks[ATTENTION]
    assert {p.split("/")[-2:][0] for p in attention.switch} == {"out"}
    assert "params/LayerNorm_0/scale" in attention.variables
    assert graph.blocks["Dense_2"].kind == "tower"
    assert sorted(graph.blocks["Dense_2"].groups) == ["Dense_2", "Dense_3"]
    assert graph.blocks["Dense_2"].rivals == ()  # x itself stays in the concatenation


@pytest.mark.parametrize(
    "removed", [ALL[:1], ALL[1:3], ALL[3:], ALL], ids=["1", "2-3", "4-5", "all"]
)
def test_removing_a_block_is_silencing_it(net, removed, tmp_path):
    network, variables, x, graph = net
    alive = {name: np.arange(g.width) != 1 for name, g in graph.groups.items() if g.exact}
    morph.shrink(graph, alive, removed=removed).save(tmp_path / "a.json")
    architecture = morph.Architecture.load(tmp_path / "a.json")
    masked = graph.mask(variables, alive, removed)
    small = architecture.take(masked)
    own = network.resized(architecture)
    left = {
        jax.tree_util.keystr(k, simple=True, separator="/")
        for k, _ in jax.tree.leaves_with_path(small)
    }
    assert left == set(graph.variables) - {p for b in removed for p in graph.blocks[b].variables}

    def values(fns, given):
        def loss(params):
            return (fns.predict({**given, "params": params}, x) ** 2).sum()

        logits, updates = fns.forward(given, x, jax.random.key(1))
        return fns.predict(given, x), logits, updates, jax.grad(loss)(given["params"])

    dense = jit(functools.partial(values, network))(masked)
    compacted = jit(functools.partial(values, own))(small)
    expected = (*dense[:2], *(architecture.take(tree) for tree in dense[2:]))
    for one, other in zip(expected, compacted, strict=True):
        most = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(one) or [1.0])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * most), one, other
        )


@pytest.mark.parametrize("removed", [ALL[:2], ALL[2:4]])
def test_what_is_removed_is_really_gone(net, removed):
    network, variables, x, graph = net
    architecture = morph.shrink(graph, {}, removed=removed)
    small = architecture.take(variables)
    predict = morph.compact(network.predict, architecture)
    left = reg.trace_channels(predict, small, x[:1])
    gone = {layer for name in removed for layer in graph.blocks[name].layers}
    kept = [o.layer for o in graph.operations if o.layer not in gone]
    assert [o.layer if o.kernel else kept[i] for i, o in enumerate(left.operations)] == kept
    assert sum(architecture.flops().values()) == reg.flops(left)()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(small["params"]))
    assert sum(architecture.parameters().values()) == parameters == reg.model_size(left)()
    fresh = jax.eval_shape(network.resized(architecture).init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, small)
    # Nothing is computed that does not reach the output.
    closed = jax.make_jaxpr(predict)(small, x)
    products = sum("dot_general" in str(eqn.primitive) for eqn in closed.jaxpr.eqns)
    assert products <= sum("dot_general" in str(o.primitive) for o in left.operations)


def test_architectures_that_lose_blocks_chain(net):
    network, variables, x, graph = net
    first = morph.shrink(graph, {"Dense_0": np.arange(6) != 2}, removed=["Residual_0", "Dense_1"])
    small = first.take(graph.mask(variables, {}, ["Residual_0", "Dense_1"]))
    predict = morph.compact(network.predict, first)
    left = reg.trace_channels(predict, small, x[:1])
    assert tuple(left.blocks) == (*ALL[1:3], ALL[4])
    alive = {name: np.arange(g.width) != 0 for name, g in left.groups.items() if g.exact}
    second = morph.shrink(left, alive, removed=[ALL[1]])
    masked = left.mask(small, alive, [ALL[1]])
    both = first.then(second)
    assert [block.name for block in both.removed] == ["Residual_0", "Dense_1", ALL[1]]
    np.testing.assert_allclose(
        jit(predict)(masked, x),
        jit(morph.compact(network.predict, both))(second.take(masked), x),
        rtol=1e-5,
    )
    wide = morph.expand(both, reg.flops(graph), budget=reg.flops(graph)())
    assert wide.widths["Residual_0/Dense_0"] == 0
    assert wide.widths["Dense_0"] > both.widths["Dense_0"]


def test_one_tower_has_to_stay():
    def fn(variables, x):
        return jnp.concatenate([x @ variables["a"], x @ variables["b"]], -1) @ variables["c"]

    variables = {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 5)), "c": jnp.ones((9, 2))}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    assert graph.blocks["a"].rivals == ("a", "b")
    small = morph.shrink(graph, {}, removed=["a"]).take(variables)
    assert sorted(small) == ["b", "c"]
    assert small["c"].shape == (5, 2)
    with pytest.raises(ValueError, match="cannot remove 'a', 'b': nothing would be left"):
        morph.shrink(graph, {}, removed=["a", "b"])
    with pytest.raises(KeyError, match="no block 'z'"):
        morph.shrink(graph, {}, removed=["z"])


def test_what_is_no_block():
    def fn(variables, x):
        y = x @ variables["a"] + variables["bias"][None]  # a bias is no branch
        z = jnp.exp(y @ variables["b"]) @ variables["c"] + 1.0  # neither is a constant
        y = y + z * (y @ variables["d"])  # goes through `d` alone: z's value does not matter
        y = y + jnp.cos(y @ variables["e"])  # cannot be silenced
        shared = y @ variables["f"]
        return (y + shared) @ variables["g"] + shared @ variables["g"]  # has another way out

    shapes = {"a": (3, 4), "bias": (4,), "b": (4, 2), "c": (2, 4), "d": (4, 4), "e": (4, 4)}
    shapes |= {"f": (4, 4), "g": (4, 2)}
    variables = {name: jnp.ones(shape) for name, shape in shapes.items()}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    assert {name: block.switch for name, block in graph.blocks.items()} == {"d": ("d",)}


def test_of_two_branches_the_trunk_is_no_block():
    def fn(variables, x):
        y = x @ variables["stem"]
        for i in "abc":  # the last two see the input, not what was computed so far
            branch = jnp.tanh((y if i == "a" else x @ variables["stem" + i]) @ variables[i])
            y = y + branch @ variables["out" + i]
        return y @ variables["head"]

    shapes = {"stem": (3, 4), "head": (4, 2)} | {"stem" + i: (3, 4) for i in "bc"}
    shapes |= dict.fromkeys("abc", (4, 5)) | {"out" + i: (5, 4) for i in "abc"}
    graph = reg.trace_channels(
        fn, {name: jnp.ones(shape) for name, shape in shapes.items()}, jnp.ones((1, 3))
    )
    assert {name: set(block.variables) for name, block in graph.blocks.items()} == {
        "outa": {"a", "outa"}, "outb": {"stemb", "b", "outb"}, "outc": {"stemc", "c", "outc"}
    }  # fmt: skip


def test_nnx_and_jitted_functions():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return x + self.last(nnx.relu(self.first(x)))

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.stem, self.head = nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(3)])

        def __call__(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    fn, state = reg.nnx_function(Model(nnx.Rngs(0)))
    x = jnp.asarray(RNG.normal(size=(2, 2)), jnp.float32)
    graph = reg.trace_channels(jax.jit(fn), state, x)
    assert len(graph.blocks) == 3
    name = list(graph.blocks)[1]
    architecture = morph.shrink(graph, {}, removed=[name])
    masked = graph.mask(state, {}, [name])
    np.testing.assert_allclose(
        fn(masked, x), morph.compact(jax.jit(fn), architecture)(architecture.take(masked), x)
    )


def test_malformed_files(net, tmp_path):
    *_, graph = net
    architecture = morph.shrink(graph, {}, removed=["Residual_0"])
    data = architecture.to_json()
    data["removed"][0]["variables"][0] = "params/Residual_9/Dense_0/kernel"
    with pytest.raises(morph.ArchitectureError, match="a removed block had 'params/Residual_9"):
        morph.Architecture.from_json(data)
    with pytest.raises(ValueError, match="belongs to a block that was removed"):
        morph.compact(net[0].predict, architecture)(net[1], net[2])


def test_blocks_are_pulled_by_what_they_cost(net):
    _, variables, _, graph = net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0, blocks=True)
    plain = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    block = graph.blocks["Residual_0"]
    (inner,) = block.groups
    bn, before = variables["params"]["Residual_0"]["BatchNorm_1"], plain.strengths(variables)[inner]

    def switched(scale):
        own = {**variables["params"]["Residual_0"], "BatchNorm_1": {**bn, "scale": scale}}
        return {**variables, "params": {**variables["params"], "Residual_0": own}}

    # What stands before a switch of a tenth is worth a tenth; a strong switch adds nothing.
    for scale, share in ((0.1, 0.1), (7.0, 1.0)):
        now = regularizer.strengths(switched(jnp.full(6, scale)))[inner]
        np.testing.assert_allclose(now, share * before, rtol=1e-6)
    free = {name: jnp.zeros(g.width, bool) for name, g in graph.groups.items()}
    kept = {name: jnp.ones(g.width, bool) for name, g in graph.groups.items()}
    assert regularizer.silent_blocks(variables) == frozenset()
    pulled = jit(regularizer.shrink_step)(variables, 1e6, free, free)
    assert regularizer.silent_blocks(pulled) == set(ALL)
    assert (
        regularizer.silent_blocks(jit(regularizer.shrink_step)(variables, 1e6, kept, free)) == set()
    )
    # A small step takes from the switch what the block costs, per channel of its own; and from
    # every channel of the stream what that costs, with blocks or without.
    step, cost = 0.3, reg.flops(graph)
    with_blocks, without = (
        jit(r.shrink_step)(variables, step, free, free)["params"]["Residual_0"]["BatchNorm_1"]
        for r in (regularizer, plain)
    )
    share = float(cost() - cost({**graph.widths, inner: 0})) / float(cost()) / graph.widths[inner]
    was = float(np.sqrt(np.mean(np.square(bn["scale"]))))
    factor = 1.0 - step * share / float(before.mean()) / was
    assert 0.1 < factor < 0.995
    for name in ("scale", "bias"):
        np.testing.assert_allclose(with_blocks[name], factor * without[name], rtol=1e-5)
    # Once channels are held, a block that was silent stays so, whatever the optimizer did.
    silent, held = switched(jnp.zeros(6)), {**free, inner: jnp.arange(5) > 0}
    woken = switched(jnp.full(6, 0.2))
    assert "Residual_0" in regularizer.silent_blocks(
        regularizer.shrink_step(woken, 0.0, kept, held, silent)
    )
    assert "Residual_0" not in regularizer.silent_blocks(
        regularizer.shrink_step(woken, 0.0, kept, held, woken)
    )
