"""What a warm expansion starts from."""

import jax
import numpy as np
from flax import linen as nn

import morph
import regularizers as reg
from morph.cycle.starts import told_apart


def test_a_warm_expansion_keeps_the_function():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(5, (3, 3))(x))
            x = nn.relu(nn.Conv(3, (3, 3))(x)) + nn.Conv(3, (1, 1))(x)
            return nn.Dense(2)(nn.relu(nn.Dense(4)(x.reshape((x.shape[0], -1)))))

    model, x = Net(), jax.random.normal(jax.random.key(1), (2, 4, 5, 2))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    cost = reg.flops(graph)
    wide = morph.expand(morph.Architecture.of_seed(graph), cost, 3.5 * cost(), warm=True)
    assert all(w > graph.widths[name] for name, w in wide.widths.items())
    alike = wide.take(variables)
    apart = told_apart(wide, alike, jax.random.key(2))
    run = jax.jit(morph.compact(model.apply, wide))
    for widened in (alike, apart):
        np.testing.assert_allclose(run(widened, x), model.apply(variables, x), rtol=1e-5, atol=1e-6)
    # What clones give differs, and what makes them does not: only then do their gradients differ.
    for name in ("Conv_1", "Conv_2", "Dense_0", "Dense_1"):
        one, other = (each["params"][name] for each in (alike, apart))
        assert np.abs(one["kernel"] / other["kernel"] - 1.0).max() > 0.1
        np.testing.assert_array_equal(one["bias"], other["bias"])
    np.testing.assert_array_equal(
        alike["params"]["Conv_0"]["kernel"], apart["params"]["Conv_0"]["kernel"]
    )
