import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import regularizers as reg
from experiments import networks


class Net(nn.Module):
    """Every kind of parameter once: kernels, biases, a scale and a shift; and statistics."""

    conv: int = 7
    hidden: int = 11
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.conv, (5, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.relu(nn.Dense(self.hidden)(x.reshape((x.shape[0], -1))))
        return nn.Dense(self.classes)(x)


def traced(model, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return reg.trace_channels(model.apply, variables, x), variables


def test_counts_every_trained_parameter_and_no_statistic():
    h, w, i, c, d, k = 4, 6, 5, 7, 11, 3
    graph, _ = traced(Net(), (2, h, w, i))
    size = reg.model_size(graph)
    by_hand = 5 * 3 * i * c + 2 * c + (h * w * c) * d + d + d * k + k
    assert size() == by_hand
    c, d = 2, 5
    by_hand = 5 * 3 * i * c + 2 * c + (h * w * c) * d + d + d * k + k
    assert size({"Conv_0": c, "Dense_0": d}) == by_hand
    assert {row.layer for row in size.lines} == {"Conv_0", "BatchNorm_0", "Dense_0", "Dense_1"}
    assert (size.name, size.unit) == ("model_size", "parameters")


def test_does_not_depend_on_the_batch():
    one, many = (reg.model_size(traced(Net(), (n, 4, 6, 5))[0])() for n in (1, 32))
    assert one == many


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8", "inception"])
@pytest.mark.promotes  # inception counts with whole numbers
def test_equals_the_number_of_elements_of_params(name):
    model = networks.build(name, input_shape=(13, 11, 3), num_classes=7)
    graph, variables = traced(model, (1, 13, 11, 3))
    assert reg.model_size(graph)() == sum(p.size for p in jax.tree.leaves(variables["params"]))


def test_counts_all_leaves_of_a_plain_tree():
    variables = {"a": jnp.zeros((5, 7)), "b": jnp.zeros(7), "c": jnp.zeros((7, 2))}
    graph = reg.trace_channels(lambda v, x: (x @ v["a"] + v["b"]) @ v["c"], variables, jnp.ones(5))
    assert reg.model_size(graph)() == 5 * 7 + 7 + 7 * 2
