"""Ranks are widths: the penalties that remove channels find the rank of what there is to learn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from morph.kernels.factorized import Factorized
from morph.kernels.formats import FORMATS

INPUTS, OUTPUTS, SAMPLES, STEPS = 36, 24, 256, 300
CORES = {"svd": {}, "tt": {"cores": 3}}


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(OUTPUTS)(x))


def task(kind, ranks):
    """What a layer of these ranks answers."""
    rng = np.random.default_rng(0)
    format, sizes = FORMATS[kind]((INPUTS, OUTPUTS), "io", **CORES[kind])
    shapes = format.core_shapes({**sizes, **ranks})
    kernel = Factorized(cores=tuple(map(rng.standard_normal, shapes)), format=format)
    kernel = np.asarray(kernel.astype(np.float32).dense())
    x = rng.standard_normal((SAMPLES, INPUTS), np.float32)
    return jnp.asarray(x), jnp.asarray(np.maximum(x @ (kernel / kernel.std() / 6.0), 0.0))


@pytest.mark.parametrize(
    ("kind", "rank", "true"), [("svd", 10, {"r": 3}), ("tt", 8, {"r1": 2, "r2": 3})]
)
@pytest.mark.promotes
def test_bonds_fall_to_the_rank_of_the_task(kind, rank, true):
    model, (x, y) = Layer(), task(kind, true)
    variables = model.init(jax.random.key(1), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plan = morph.tensorize_plan(graph, variables, kind=kind, rank=rank, cost="size", **CORES[kind])
    cores, fn = plan.draw(variables, jax.random.key(2)), morph.tensorized(model.apply)
    bonds = reg.trace_channels(fn, cores, x)
    kernel = cores["params"]["Dense_0"]["kernel"]
    assert sorted(bonds.widths.values()) == sorted(kernel.ranks.values())
    assert all(kernel.ranks[bond] > true[bond] + 2 for bond in true)

    regularizer = reg.NetworkRegularizer(bonds, reg.model_size(bonds), threshold=0.0)
    tx = reg.proximal(optax.adamw(0.03, weight_decay=0.01), regularizer, strength=0.1)

    @jax.jit
    def train(carry):
        def step(carry, _):
            variables, state = carry
            gradient = jax.grad(lambda v: jnp.mean((fn(v, x) - y) ** 2))(variables)
            updates, state = tx.update(gradient, state, variables)
            return (optax.apply_updates(variables, updates), state), None

        return jax.lax.scan(step, carry, length=STEPS)[0]

    learned, _ = train((cores, tx.init(cores)))
    arch = morph.shrink(bonds, regularizer.alive(learned))
    small = arch.take(learned)
    found = small["params"]["Dense_0"]["kernel"]
    # Parallel components cost no more than one: some stay, and a decomposition joins them.
    assert all(true[bond] <= rank <= 2 * true[bond] for bond, rank in found.ranks.items())
    joined = morph.factorize(found.dense(), "io", kind, error=0.02, **CORES[kind]).value
    assert joined.ranks == true
    assert float(jnp.mean((fn(learned, x) - y) ** 2)) < 0.02 * float(jnp.var(y))
    for answer in (fn(small, x), morph.compact(fn, arch)(small, x)):
        np.testing.assert_allclose(answer, fn(learned, x), atol=1e-5)
