"""A Linen model and a training loop of one's own, to half of the FLOPs.

The lines that end in `# morph` are all that Morph adds: without them this is the plain loop.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import morph  # morph
import regularizers as reg  # morph

STEPS = 200


class Net(nn.Module):
    """Convolutions around a residual sum, a dense head."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.relu(x + nn.Conv(16, (3, 3))(nn.relu(nn.Conv(24, (3, 3))(x))))
        x = nn.relu(nn.Conv(32, (3, 3), strides=2)(x))
        return nn.Dense(2)(x.mean((1, 2)))


@jax.jit
def step(state, x, y):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def main() -> None:
    key, model = jax.random.key(0), Net()
    y = jnp.arange(64) % 2  # quiet or loud noise
    x = jax.random.normal(key, (64, 6, 6, 1)) * (0.8 + 0.4 * y[:, None, None, None])
    variables = model.init(key, x[:1])
    tx = optax.adam(3e-3)
    graph = reg.trace_channels(model.apply, variables, x[:1])  # morph
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "group_lasso")  # morph
    budget = morph.Budget(regularizer, "50%", steps=STEPS)  # morph
    tx = budget.optimizer(tx)  # morph
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)
    for i in range(1, STEPS + 1):
        state, loss = step(state, x, y)
        state = budget.look(i, state.params, state)  # morph
        if i % 100 == 0:
            print(f"step {i}: loss {float(loss):.3f}")
    params, predict = state.params, model.apply
    arch = budget.finish(params, state)  # morph
    logits = predict({"params": params}, x)  # morph
    params, predict = arch.take(params), morph.compact(model.apply, arch)  # morph

    print(arch)
    share = regularizer.cost(arch.widths) / regularizer.cost()
    apart = jnp.abs(predict({"params": params}, x) - logits).max()
    print(f"{share:.1%} of the FLOPs; logits differ by {apart:.1e}")
    assert 0.49 <= share <= 0.5
    assert apart < 1e-4


if __name__ == "__main__":
    main()
