"""Prunes a Linen model of one's own, shares its weights, and writes it to files that run elsewhere.

Prune while training, share what is left, train the shared values, write one small file, read it
back; and a StableHLO file, which needs neither the model's code nor Flax.
"""

import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import morph
from morph import compress
from morph.compress import accuracy_of, finished, gradual, pruned, shared, train
from morph.export import stablehlo


class Net(nn.Module):
    """A convolution and two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x)).reshape(x.shape[0], -1)
        return nn.Dense(4)(nn.relu(nn.Dense(64)(x)))


def main() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=512).astype(np.int32)
    x = generator.normal(size=(4, 8, 8, 1))[y] + generator.normal(size=(512, 8, 8, 1))
    data = morph.Batch(x.astype(np.float32), y)
    network = morph.linen_network(Net(), train_kwarg=None)
    variables = network.init(jax.random.key(0), data.x[:1])
    weights = sum(leaf.size for leaf in jax.tree.leaves(variables))

    tx = pruned(optax.adam(3e-3), gradual(0.9, start=20, end=120, every=10), "erk")
    variables, state = train(network, variables, data, tx, steps=200, batch_size=64)
    params = finished(variables["params"], state)  # kernels are `Pruned` values now
    params = shared(params, {"*/kernel": 8})  # zero, or one of 8 values
    variables, _ = train(network, {"params": params}, data, optax.adam(1e-3), steps=50)
    print(f"accuracy {accuracy_of(network, variables, data):.3f}")

    folder = Path(tempfile.mkdtemp())
    size = compress.save(folder / "net.morph", variables)
    again = compress.load(folder / "net.morph").variables
    assert compress.same(again, variables)
    print(f"{size:,} bytes, {4 * weights / size:.0f} times smaller than {weights:,} floats")

    logits = morph.tensorized(network.predict)(again, data.x)
    dense = jax.tree.map(jnp.asarray, compress.unpacked(dict(again)))
    stablehlo.to_stablehlo(network.predict, dense, data.x, folder / "net.stablehlo")
    run = stablehlo.load(folder / "net.stablehlo")
    print(f"exported logits differ by {np.abs(run(data.x) - logits).max():.1e}")
    assert 4 * weights / size > 10
    assert np.allclose(run(data.x), logits, atol=1e-4)


if __name__ == "__main__":
    main()
