"""Shrinks an NNX model, gets an NNX model back, and goes on training it with its optimizer state.

`morph.compact` gives a function, for any model; `morph.native` a module, where its code allows it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import morph
import regularizers as reg


class Net(nnx.Module):
    """Mixes tokens by attention; reshapes by a number of heads of its own."""

    def __init__(self, rngs: nnx.Rngs):
        self.num_heads = 4
        self.qkv = nnx.Linear(6, 3 * 16, rngs=rngs)
        self.out = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        batch, length, _ = x.shape
        heads = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1)
        q, k, v = (heads[:, :, i] for i in range(3))
        weights = nnx.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return self.out(jnp.einsum("bhts,bshd->bthd", weights, v).reshape(batch, length, -1))


def main() -> None:
    model, tx = Net(nnx.Rngs(0)), optax.adam(1e-2)
    x = jax.random.normal(jax.random.key(1), (8, 5, 6))

    def loss(fn, variables):
        return jnp.mean((fn(variables, x) - x[..., :2]) ** 2)

    fn, variables = reg.nnx_function(model)
    state = tx.init(variables)
    for _ in range(20):
        updates, state = tx.update(jax.grad(loss, 1)(fn, variables), state)
        variables = optax.apply_updates(variables, updates)

    graph = reg.trace_channels(fn, variables, x)
    heads = next(name for name, width in graph.widths.items() if width == 4)
    alive = {heads: np.array([True, False, True, True])}  # whatever decides: here one head goes
    arch = morph.shrink(graph, alive)

    small = morph.native(model, arch, x)  # an example input lets it verify what it did
    print(f"{model.num_heads} heads -> {small.num_heads}, {small.qkv.out_features} features")
    fn, _ = reg.nnx_function(small)
    variables, state = arch.take(variables), arch.take(state)
    before = loss(fn, variables)
    for _ in range(20):
        updates, state = tx.update(jax.grad(loss, 1)(fn, variables), state)
        variables = optax.apply_updates(variables, updates)
    print(f"loss {before:.3f} -> {loss(fn, variables):.3f}")
    assert small.num_heads == 3
    assert loss(fn, variables) < before


if __name__ == "__main__":
    main()
