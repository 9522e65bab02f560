"""The network that fixed point is tested on."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Net(nn.Module):
    """A strided and a depthwise convolution, batch norm, a residual and a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        """Logits."""
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="stem")(x))
        y = nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False, name="depthwise")(x)
        x = x + nn.BatchNorm(use_running_average=not train, name="norm")(y)
        return nn.Dense(3, name="logits")(x.reshape(x.shape[0], -1))


def with_tiny_channel(variables):
    """Of the depthwise kernel; the norm makes it large again."""
    tiny = jax.tree.map(lambda leaf: leaf, variables)
    ratios = jnp.asarray([1, 1e-4, 0, 3, 1, 2.0]).reshape(1, 1, 1, 6)
    kernel = tiny["params"]["depthwise"]["kernel"] * ratios
    tiny["params"]["depthwise"]["kernel"] = kernel
    tiny["params"]["norm"]["scale"] = jnp.asarray([1, 1e4, 1, 0.3, 1, 0.5])
    tiny["batch_stats"]["norm"]["mean"] = jnp.asarray([0.1, 1e-5, 0.3, -0.2, 0, 0.4])
    return tiny
