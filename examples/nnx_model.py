"""Shrinks an NNX model of one's own: the same road, through `reg.nnx_function`."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import morph
import regularizers as reg


class Net(nnx.Module):
    """A dense network with batch norm and dropout."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(12, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


def main() -> None:
    fn, variables = reg.nnx_function(
        Net(nnx.Rngs(0))
    )  # variables: {"params": .., "batch_stats": ..}
    x = jax.random.normal(jax.random.key(1), (5, 12))
    graph = reg.trace_channels(fn, variables, x)
    print(graph.explain("hidden/kernel"))

    alive = {"hidden": np.arange(32) % 3 != 0}  # whatever decides: here every third channel goes
    arch = morph.shrink(graph, alive)
    small, small_fn = arch.take(variables), morph.compact(fn, arch)
    np.testing.assert_allclose(small_fn(small, x), fn(graph.mask(variables, alive), x), atol=1e-5)

    # Train mode too: the updated batch statistics come out at the new width.
    rngs = {"dropout": jax.random.key(2)}
    logits, updates = small_fn(small, x, train=True, mutable=["batch_stats"], rngs=rngs)
    print(logits.shape, jax.tree.map(jnp.shape, updates))
    assert updates["batch_stats"]["norm"]["mean"].shape == (21,)


if __name__ == "__main__":
    main()
