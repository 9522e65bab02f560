"""Every program of a run is lowered for GPUs and TPUs too: nothing CPU-only slips in."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from jax import export

import morph
import regularizers as reg
from morph.training.augment import AUGMENTATIONS, augmented
from morph.training.data import Batch
from morph.training.gated import gated_network, with_gates
from morph.training.losses import Teacher, soft_labels
from morph.training.saliency import make_saliency
from morph.training.step import TrainState, make_objective, make_step
from morph.training.task import inputs_augmented

PLATFORMS = ("cuda", "tpu")
KEY = jax.random.key(0, impl="rbg")
RNG = np.random.default_rng(0)
DATA = Batch(
    RNG.normal(size=(6, 4, 4, 2)).astype(np.float32), RNG.integers(0, 3, 6).astype(np.int32)
)
CHUNK = np.zeros((2, 4), np.int32)


class Net(nn.Module):
    """A convolution, batch norm, attention, dropout, a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(7, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn")(x))
        x = nn.LayerNorm()(x.reshape(x.shape[0], -1, 7))
        x += nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, name="mix")(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.gelu(nn.Dense(40, name="up")(x)))
        return nn.Dense(3, name="head")(x.mean(1))


@pytest.fixture(scope="module")
def net():
    network = morph.linen_network(Net())
    variables = jax.jit(network.init)(KEY, DATA.x)
    return network, variables, reg.trace_channels(network.predict, variables, DATA.x)


def lowered(fn, *args):
    like = jax.eval_shape(lambda *given: given, *args)
    assert export.export(fn, platforms=PLATFORMS)(*like).platforms == PLATFORMS


def lower_step(network, variables, tx, **objective):
    state = jax.eval_shape(lambda v: TrainState.of(network, v, tx, averages=True), variables)
    lowered(make_step(make_objective(**objective), ema_decay=0.9), state, DATA, CHUNK, KEY)
    return state


def test_the_plain_step_with_all_that_settings_ask_for(net):
    network, variables, _ = net
    state = jax.eval_shape(
        lambda v: TrainState.of(network, v, optax.adamw(1e-3), teacher=v), variables
    )
    objective = make_objective(
        augment=inputs_augmented(augmented(list(AUGMENTATIONS))),
        mixup_alpha=0.2,
        precision="bfloat16",
        teacher=Teacher(predict=network.predict, weight=0.5, loss=soft_labels),
    )
    lowered(make_step(objective), state, DATA, CHUNK, KEY)


@pytest.mark.parametrize("pull", ["decay", "threshold"])
def test_the_regularized_step_and_what_looks_measure(net, pull):
    network, variables, graph = net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0, blocks=True)
    tx = morph.Budget(regularizer, 0.5, steps=9, pull=pull).optimizer(optax.sgd(0.1, momentum=0.9))
    state = lower_step(network, variables, tx)
    lowered(jax.jit(regularizer.strengths), state.params)
    if pull == "decay":
        saliency = make_saliency(make_objective(), regularizer)
        lowered(saliency.__closure__[0].cell_contents, state, DATA, CHUNK, np.int32(0), KEY)


def test_the_step_with_gates(net):
    network, variables, graph = net
    gated = with_gates(variables, graph)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gates", threshold=0.0)
    tx = morph.Budget(regularizer, 0.5, steps=9).optimizer(optax.sgd(0.1))
    lower_step(gated_network(network, graph, steps=9), gated, tx)


def test_the_compact_and_the_tensorized_network(net):
    network, variables, graph = net
    arch = morph.shrink(graph, {n: np.arange(w) % 3 != 1 for n, w in graph.widths.items()})
    small, compact = arch.take(variables), network.resized(arch)
    lower_step(compact, small, optax.sgd(0.1, momentum=0.9))
    lowered(jax.jit(compact.predict), small, DATA.x)
    lowered(jax.jit(compact.init), KEY, DATA.x)
    plan = morph.tensorize_plan(
        reg.trace_channels(compact.predict, small, DATA.x),
        small,
        kind={"up": "tt", "conv": "cp", "*": "auto"},
        rank=2,
    )
    cores, tensorized = plan.factorize(small), network.resized(arch.tensorized(plan.kernels))
    lower_step(tensorized, cores, optax.sgd(0.1, momentum=0.9))
    lowered(jax.jit(tensorized.predict), cores, DATA.x)
