"""An NNX model and a training loop of one's own, to half of the FLOPs, and a native model back.

The lines that end in `# morph` are all that Morph adds: without them this is the plain loop.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import morph  # morph
import regularizers as reg  # morph

STEPS = 200


class Net(nnx.Module):
    """A dense network with batch norm and dropout."""

    def __init__(self, hidden: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(12, hidden, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.second = nnx.Linear(hidden, 40, rngs=rngs)
        self.out = nnx.Linear(40, 4, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.first(x))))
        return self.out(nnx.relu(self.second(x)))


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def main() -> None:
    x = jax.random.normal(jax.random.key(1), (128, 12))
    y = jnp.abs(x[:, :4]).argmax(-1)
    model = Net(64, nnx.Rngs(0))
    tx = optax.adam(3e-3)
    graph = reg.trace_channels(*reg.nnx_function(model), x[:1])  # morph
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "group_lasso")  # morph
    budget = morph.Budget(regularizer, "50%", steps=STEPS)  # morph
    tx = budget.optimizer(tx)  # morph
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for i in range(1, STEPS + 1):
        loss = step(model, optimizer, x, y)
        budget.look(i, model, optimizer)  # morph
        if i % 50 == 0:
            print(f"step {i}: loss {float(loss):.3f}")
    model.eval()
    arch = budget.finish(model, optimizer)  # morph
    seed, model = model, morph.native(model, arch, x)  # morph

    print(arch)
    share = regularizer.cost(arch.widths) / regularizer.cost()
    print(f"{share:.1%} of the FLOPs; {model.first.out_features} of 64 units")
    assert 0.49 <= share <= 0.5
    np.testing.assert_allclose(model(x), seed(x), atol=1e-4)


if __name__ == "__main__":
    main()
