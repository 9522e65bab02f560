"""Time and memory on this machine, of a network and a narrower one."""

import flax.linen as nn
import jax
import numpy as np

import morph
import regularizers as reg
from experiments import measured


class Net(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(256)(x)))


def test_a_narrower_network_takes_less_memory(monkeypatch):
    x = np.ones((1, 37), np.float32)
    variables = Net().init(jax.random.key(0), x)
    graph = reg.trace_channels(Net().apply, variables, x)
    arch = morph.shrink(graph, {"Dense_1": np.arange(256) < 16})
    network = morph.linen_network(Net(), train_kwarg=None)
    seed = morph.Architecture.of_seed(graph)
    networks = {"seed": seed, "shrunk": arch, "fine-tuned": arch}
    found = measured.measured(network, networks, x)
    assert {one["device"] for one in found.values()} == {jax.devices()[0].device_kind}
    weights = [4 * (37 * width + width + 3 * width + 3) for width in (256, 16)]
    assert found["seed"]["bytes"] >= weights[0]
    assert weights[1] <= found["shrunk"]["bytes"] < weights[0]
    assert found["fine-tuned"] is found["shrunk"]  # they are of the same shapes
    assert min(one["seconds"] for one in found.values()) > 0
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert measured.measured(network, networks, x) == {}
