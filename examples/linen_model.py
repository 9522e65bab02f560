"""Shrinks a Linen model of one's own, with a training loop of one's own.

Needs only `regularizers` and `morph`: infer the channels, wrap the optimizer, train, shrink.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import morph
import regularizers as reg


class Net(nn.Module):
    """Two convolutions, a residual sum, a dense head."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.relu(x + nn.Conv(16, (3, 3))(nn.relu(nn.Conv(24, (3, 3))(x))))
        return nn.Dense(2)(x.mean((1, 2)))


def main() -> None:
    key, model = jax.random.key(0), Net()
    y = jnp.arange(128) % 2  # quiet or loud noise
    x = jax.random.normal(key, (128, 8, 8, 1)) * (0.8 + 0.4 * y[:, None, None, None])
    variables = model.init(key, x[:1])

    # These lines are all that Morph adds to the loop.
    graph = reg.trace_channels(model.apply, variables, x[:1])
    cost = reg.flops(graph)
    regularizer = reg.NetworkRegularizer(graph, cost, "group_lasso", threshold=0.0)
    tx = reg.proximal(optax.adam(3e-3), regularizer, strength=0.06)

    @jax.jit
    def step(variables, state):
        def loss(variables):
            logits = model.apply(variables, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(variables)
        updates, state = tx.update(grads, state, variables)
        return optax.apply_updates(variables, updates), state, value

    print(graph)
    state = tx.init(variables)
    for i in range(1, 151):
        variables, state, value = step(variables, state)
        if i % 50 == 0:
            ratio = float(regularizer.alive_cost(variables)) / cost()
            print(f"step {i}: loss {float(value):.3f}, {ratio:.0%} of the FLOPs alive")

    arch = morph.shrink(graph, regularizer.alive(variables))
    small_variables, small_model = arch.take(variables), morph.compact(model.apply, arch)
    difference = jnp.abs(small_model(small_variables, x) - model.apply(variables, x)).max()
    print(arch)
    print(f"{cost(arch.widths) / cost():.0%} of the FLOPs; logits differ by {difference:.1e}")
    assert cost(arch.widths) < cost()
    assert np.asarray(difference) < 1e-4


if __name__ == "__main__":
    main()
