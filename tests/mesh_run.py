"""A network that eight devices share is trained, cut, and resumed elsewhere; prints JSON.

`tests/morph/training/test_layout.py` runs it, with
XLA_FLAGS=--xla_force_host_platform_device_count=8, which JAX has to see before it starts.
"""

import json
import re
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import morph
import regularizers as reg
from morph.cycle.checkpoint import Checkpoints
from morph.cycle.phase import arrays_of
from morph.cycle.shrinking import Trimmed
from morph.training.data import Batch
from morph.training.layout import Layout, rules_named
from morph.training.loop import Course, Loop
from morph.training.saliency import make_saliency
from morph.training.step import TrainState, make_objective, make_step
from regularizers.host import on_host

WIDTH, HIDDEN, TOKENS = 24, 64, 16
STEPS, EVERY = 8, 2
RULES = (
    "q=fsdp:tensor:-,k=fsdp:tensor:-,v=fsdp:tensor:-,o=tensor:fsdp,"
    "gate=fsdp:tensor,up=fsdp:tensor,down=tensor:fsdp,embed=tensor:fsdp,head=fsdp:tensor"
)
KEY = jax.random.key(0, impl="rbg")


class Llama(nn.Module):
    """Embedding, a pre-norm block of causal attention and a gated MLP, a head."""

    width: int = WIDTH
    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, ids):
        def dense(name, *shape):
            return nn.DenseGeneral(shape, use_bias=False, name=name)

        x = nn.Embed(TOKENS, self.width, name="embed")(ids)
        y = nn.RMSNorm(name="norm")(x)
        q, k, v = (dense(name, 4, self.width // 4)(y) for name in "qkv")
        y = nn.dot_product_attention(q, k, v, mask=nn.make_causal_mask(ids)).reshape(x.shape)
        x += dense("o", self.width)(y)
        y = nn.RMSNorm(name="mlp_norm")(x)
        x += dense("down", self.width)(
            nn.silu(dense("gate", self.hidden)(y)) * dense("up", self.hidden)(y)
        )
        return dense("head", TOKENS)(nn.RMSNorm(name="last")(x))


def mesh_of(**sizes):
    count = int(np.prod(list(sizes.values())))
    return Mesh(np.asarray(jax.devices()[:count]).reshape(*sizes.values()), tuple(sizes))


def tokens(count):
    rng = np.random.default_rng(0)
    ids = (rng.integers(0, 16, (count, 1)) + np.arange(6) * rng.integers(1, 3, (count, 1))) % TOKENS
    return Batch(ids[:, :-1].astype(np.int32), ids[:, 1:].astype(np.int32))


def budget_of(graph, layout, steps=STEPS):
    regularizer = reg.NetworkRegularizer(
        graph, reg.flops(graph), threshold=0.0, relative_to="fresh", blocks=True
    )
    regularizer = regularizer.summed(layout.sums)
    budget = morph.Budget(regularizer, 0.6, steps=steps, every=EVERY, settle=0.0, round_to=4)
    return budget, budget.optimizer(optax.sgd(0.3, momentum=0.9))


NETWORK = morph.linen_network(Llama(), train_kwarg=None)
DATA = tokens(64)
START = jax.device_get(jax.jit(NETWORK.init)(jax.random.key(0), DATA.x[:1]))
GRAPH = reg.trace_channels(NETWORK.predict, START, DATA.x[:1])


def train(mesh, rules, saves, start=0):
    """Trained to the cut, and cut; the losses, what is left, and what each device holds of it.

    Args:
        mesh: of devices.
        rules: of what is divided over it.
        saves: checkpoints, by the step that each is of; all is saved that is not there.
        start: the step to go on from; of one that does not begin the losses are enough.
    """
    layout = Layout.of(mesh, rules_named(rules), START)
    budget, tx = budget_of(GRAPH, layout)
    objective = make_objective()
    loop = Loop(
        step=make_step(objective, laid=layout.constrained),
        data=DATA,
        batch_size=16,
        every=EVERY,
        layout=layout,
    )
    state = TrainState.of(NETWORK, layout.variables(START), tx)
    if start:
        state = state.replace(**saves[start].newest().into(arrays_of(state)))
    course = Course(name="shrink", steps=STEPS, key=KEY, shuffle=0, start=start)
    losses = []
    for done in loop.run(layout.state(state), course):
        state = done.state
        losses.append(float(done.loss))
        if (saved := saves.get(done.step)) and saved.newest() is None:
            saved.save(arrays_of(state), {})
            saved.wait()
    if start:
        return {"losses": losses, "share": share((state.params, state.opt_state))}
    state = budget.look(STEPS, state.params, state)
    batches = loop.sample(1, 4)
    saliency = make_saliency(objective, budget.regularizer)(state, *batches, KEY)
    trim = Trimmed.of(budget.landed(state.params, saliency), GRAPH, state.variables)
    small = layout.variables(trim.small)
    return {
        "losses": losses,
        "kept": {name: list(map(int, g.parents)) for name, g in trim.step.groups.items()},
        "small": [float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(on_host(small))],
        "share": share((state.params, state.opt_state)),
        "share_after": share(small),
        "scale": {name: float(s.mean()) for name, s in saliency.items()},
    }


def share(tree):
    """What one device holds of the matrices of a tree, of all."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]
    return sum(leaf.addressable_shards[0].data.size for leaf in leaves) / sum(
        x.size for x in leaves
    )


def compiled():
    """What a step moves between devices, and takes on each: plain and regularized, and on one."""
    network = morph.linen_network(Llama(512, 1024), train_kwarg=None)
    variables = jax.eval_shape(network.init, KEY, DATA.x[:1])
    graph = reg.trace_channels(network.predict, variables, DATA.x[:1])
    eight = Layout.of(mesh_of(fsdp=4, tensor=2), rules_named(RULES), variables)
    one = Layout(mesh=mesh_of(data=1))
    cases = {
        "plain": (optax.sgd(0.3, momentum=0.9), eight),
        "regularized": (budget_of(graph, eight, 1000)[1], eight),  # in turns of two steps
        "one": (budget_of(graph, one, 1000)[1], one),
    }
    chunk = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[None, :4], DATA))
    found = {}
    for name, (tx, layout) in cases.items():
        like = jax.eval_shape(lambda v, tx=tx: TrainState.of(network, v, tx), variables)
        step = make_step(make_objective(), laid=layout.constrained)
        program = step.lower(layout.abstract(like), None, chunk, KEY).compile()
        use = program.memory_analysis()
        found[name] = {
            "moved": moved(program.as_text()),
            "state": use.argument_size_in_bytes,
            "peak": use.argument_size_in_bytes + use.temp_size_in_bytes,
        }
    return {**found, "channels": sum(graph.widths.values())}


def halved():
    """Updates in half precision, on eight devices and on one: what they move, and what is owed."""
    model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(24)])
    x = np.ones((1, 40), np.float32)
    variables = jax.device_get(model.init(KEY, x))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
    still = jax.tree.map(np.zeros_like, params)  # else it depends on what XLA rounds in between
    graph = reg.trace_channels(model.apply, variables, x)
    found = {}
    for name, mesh in (("eight", mesh_of(fsdp=4, tensor=2)), ("one", mesh_of(data=1))):
        rules = rules_named("*/kernel=fsdp:tensor" if name == "eight" else "")
        layout = Layout.of(mesh, rules, variables)
        regularizer = reg.NetworkRegularizer(graph, reg.flops(graph)).summed(layout.sums)
        tx = reg.proximal(optax.sgd(0.1), regularizer, strength=1e-3)
        laid = [layout.variables({"params": tree})["params"] for tree in (params, still)]
        state = layout.whole(tx.init(params))
        update = jax.jit(tx.update).lower(laid[1], state, laid[0]).compile()
        state = update(laid[1], state, laid[0])[1]
        owed = {name: on_host(one).tolist() for name, one in state.owed.channels.items()}
        found[name] = {"moved": moved(update.as_text()), "owed": owed}
    return found


def moved(text):
    """Of every collective operation its name, and how many numbers each array that it gives has."""
    found = []
    kinds = r"(all-\w+|reduce-scatter|collective-permute)(?:-start)?"
    for result, kind in re.findall(rf" = (.*?) {kinds}\(", text):
        shapes = re.findall(r"\[([\d,]*)\]", result)
        sizes = [int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes]
        found.append([kind, sizes])
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        saves = {step: Checkpoints(Path(scratch, str(step))) for step in (4, 6)}
        found = {
            "one": train(mesh_of(data=1), "", {}),
            "eight": train(mesh_of(fsdp=4, tensor=2), RULES, saves={4: saves[4]}),
            "four": train(mesh_of(data=2, fsdp=2), "", saves, start=4),
            "fsdp": train(mesh_of(fsdp=4), "", saves, start=6),
            "compiled": compiled(),
            "halved": halved(),
        }
        for checkpoints in saves.values():
            checkpoints.close()
    print(json.dumps(found))
