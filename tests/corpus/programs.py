"""Random small networks: programs of a few operations, with their variables."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

IMAGE = (2, 4, 4, 3)  # batch, height, width, channels
CLASSES = 3


class Variables:
    """Hands out variables by name in the order of use; without values it draws them."""

    def __init__(self, values=None):
        self.values = values or {}
        self.rng = None if values else np.random.default_rng(0)
        self.used = 0

    def __call__(self, leaf, *shape):
        name = f"{leaf}_{self.used}"
        self.used += 1
        if self.rng is not None:
            value = self.rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
            value = abs(value) + 0.5 if leaf == "var" else value
            self.values[name] = np.asarray(value, np.float32)  # not a tracer, where it is traced
        return self.values[name]

    def vector(self, kind, x):
        """A variable over the channels of `x`, with its rank."""
        return self(kind, x.shape[-1]).reshape((1,) * (x.ndim - 1) + (-1,))


def conv(var, x, width, window=3, groups=1):
    kernel = var("kernel", window, window, x.shape[-1] // groups, width)
    out = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return out + var.vector("bias", out)


def dense(var, x, width):
    out = x @ var("kernel", x.shape[-1], width)
    return out + var.vector("bias", out)


def relu(x):
    return jnp.maximum(x, 0.0)


# Each operation is op(var, x, width, choice) -> x [N, H, W, C]; `choice` is a small integer.


def plain(var, x, width, choice):
    return jax.nn.gelu(conv(var, x, width, 1 + 2 * (choice % 2)))


def residual(var, x, width, choice):
    y = relu(conv(var, x, width))
    return relu(x + conv(var, y, x.shape[-1], 1))


def towers(var, x, width, choice):
    parts = [relu(conv(var, x, width, 1)), x, jnp.tanh(conv(var, x, 1 + choice))]
    return jnp.concatenate(parts[choice % 3 :] + parts[: choice % 3], -1)


def split(var, x, width, choice):
    cut = 1 + choice % (x.shape[-1] - 1) if x.shape[-1] > 1 else 0
    first, second = x[..., :cut], x[..., cut:]
    return jnp.concatenate([relu(second), first], -1)


def gated(var, x, width, choice):
    gate, value = jnp.split(conv(var, x, 2 * width), 2, -1)
    return jax.nn.sigmoid(gate) * value


def sliced(var, x, width, choice):
    return x[..., choice % x.shape[-1] :]


def padded(var, x, width, choice):
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (choice % 3, 2)))


def depthwise(var, x, width, choice):
    channels = x.shape[-1]
    return relu(conv(var, x, channels * (1 + choice % 2), groups=channels))


def grouped(var, x, width, choice):
    groups = 2 + choice % 2
    x = relu(conv(var, x, groups * width))
    return relu(conv(var, x, groups * (1 + choice), groups=groups))


def batch_norm(var, x, width, choice):
    scale = var.vector("scale", x) * lax.rsqrt(var.vector("var", x) + 1e-3)
    return (x - var.vector("mean", x)) * scale + var.vector("bias", x)


def normalized(x, axes):
    mean = x.mean(axes, keepdims=True)
    variance = (x * x).mean(axes, keepdims=True) - mean * mean
    return (x - mean) * lax.rsqrt(variance + 1e-1)


def layer_norm(var, x, width, choice):
    return normalized(x, -1) * var.vector("scale", x) + var.vector("bias", x)


def group_norm(var, x, width, choice):
    groups = 2 + choice % 2
    x = conv(var, x, groups * width)
    y = normalized(x.reshape(*x.shape[:-1], groups, -1), (1, 2, 4)).reshape(x.shape)
    return y * var.vector("scale", x) + var.vector("bias", x)


def excited(var, x, width, choice):
    s = jax.nn.sigmoid(dense(var, relu(dense(var, x.mean((1, 2)), width)), x.shape[-1]))
    return x * s[:, None, None, :]


def pooled(var, x, width, choice):
    low, add = (-jnp.inf, lax.max) if choice % 2 else (0.0, lax.add)
    return lax.reduce_window(x, low, add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def attended(var, x, width, choice):
    heads = 2 + choice % 2
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])  # [N, T, C]
    q, k, v = (
        dense(var, tokens, heads * width).reshape(*tokens.shape[:2], heads, width) for _ in range(3)
    )
    weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, k), -1)
    out = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(*tokens.shape[:2], -1)
    return dense(var, out, 2 * width).reshape(*x.shape[:3], -1)


def powers(var, x, width, choice):
    return [
        lambda h: jnp.abs(h) ** 1.5, jnp.square, lambda h: jnp.cbrt(h), lambda h: h**3,
        lambda h: jnp.power(jnp.abs(h) + 0.0, 0.7), lambda h: jnp.sqrt(jax.nn.relu(h) * jnp.abs(h)),
    ][choice](conv(var, x, width, 1))  # fmt: skip


def standardized(var, x, width, choice):
    """A convolution whose kernel is standardized, also without an eps."""
    kernel = var("kernel", 3, 3, x.shape[-1], width)
    if choice % 2:
        kernel = kernel - kernel.mean((0, 1, 2), keepdims=True)
        kernel = kernel / (jnp.std(kernel, (0, 1, 2), keepdims=True) + (1e-5 if choice < 5 else 0))
    else:
        kernel = kernel - kernel.mean((0, 1, 2)).reshape(1, 1, 1, -1)
        variance = jnp.square(kernel).mean((0, 1, 2)).reshape(1, 1, 1, -1)
        kernel = kernel * lax.rsqrt(variance + (1e-5 if choice < 4 else 0))
    out = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(out + var.vector("bias", out))


def instance_norm(var, x, width, choice):
    x = conv(var, x, width)
    eps = [1e-2, 0.0, 1e-2][choice % 3]
    y = (x - x.mean((1, 2), keepdims=True)) / (jnp.std(x, (1, 2), keepdims=True) + eps)
    return y * var.vector("scale", x) + var.vector("bias", x)


def divided(var, x, width, choice):
    """By what is learned: snake, temperatures, step sizes."""
    h = conv(var, x, width, 1)
    t = var.vector("var", h)
    return [
        lambda: h + jnp.sin(t * h) ** 2 / t, lambda: jnp.tanh(h / t), lambda: h * (1.0 / t),
        lambda: h * lax.rsqrt(t), lambda: h / (t + 1e-3), lambda: jnp.tanh(h * t**-1.5) * t,
    ][choice]()  # fmt: skip


def guarded(var, x, width, choice):
    """By what is, may be, or cannot be zero in a dead channel."""
    h = conv(var, x, width, 1)
    return h / [
        lambda: jnp.where(h == 0, 1.0, h * h + 1.0), lambda: 1.0 + jnp.abs(h),
        lambda: jnp.exp(h) + 1.0, lambda: jax.nn.softplus(h) + 0.1,
        lambda: jnp.abs(h).max((1, 2), keepdims=True),
        lambda: jnp.sqrt(jnp.square(h).sum(-1, keepdims=True)) + 1e-2,
    ][choice]()  # fmt: skip


def quantized(var, x, width, choice):
    """With the largest magnitude of a row, or of a kernel's column, as the scale."""
    scale = jnp.abs(x).max([-1, (1, 2, 3), (1, 2)][choice % 3], keepdims=True) + 1e-3
    kernel = var("kernel", x.shape[-1], width)
    kernel = kernel / (jnp.abs(kernel).max(0, keepdims=True) + 1e-3)
    return jnp.tanh(x / scale) @ kernel


def attended_places(var, x, width, choice):
    """The spatial attention of CBAM: largest and mean over channels."""
    x = relu(conv(var, x, width))
    parts = [x.max(-1, keepdims=True), x.mean(-1, keepdims=True)][: 1 + choice % 2]
    return x * jax.nn.sigmoid(conv(var, jnp.concatenate(parts, -1), 1))


def shuffled(var, x, width, choice):
    """By constant positions."""
    n = x.shape[-1]
    order = np.random.default_rng(choice + n).permutation(n)
    return [
        lambda: x[..., order], lambda: jnp.take(x, order, axis=-1), lambda: x[..., ::-1],
        lambda: jnp.roll(x, 1, -1), lambda: jnp.flip(x, -1) + conv(var, x, n, 1),
        lambda: x[..., np.arange(n).reshape(-1, 2 - n % 2).T.ravel()],
    ][choice]()  # fmt: skip


def shuffled_groups(var, x, width, choice):
    """ShuffleNet: grouped, shuffled, depthwise, grouped."""
    x = relu(conv(var, x, 2 * width))
    x = relu(conv(var, x, 4 * (1 + choice % 2), groups=2))
    n = x.shape[-1]
    if choice < 3:
        x = x[..., np.arange(n).reshape(2, -1).T.ravel()]
    else:
        x = x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)
    x = conv(var, x, n, groups=n)
    return relu(conv(var, x, n, groups=2))


def reshaped(var, x, width, choice):
    """In another order than that of the rows."""
    n, height, wide, channels = x.shape
    if choice % 2:
        flat = lax.reshape(x, (n * wide * height, channels), (0, 2, 1, 3))
        return flat.reshape(n, wide, height, channels)
    turned = lax.reshape(x, (channels, n * height * wide), (3, 0, 1, 2))
    return turned.T.reshape(x.shape)


def picked(var, x, width, choice):
    """By the sign of the channel."""
    h = conv(var, x, width, 1)
    return [
        lambda: jnp.where(h > 0, h, jnp.expm1(h)), lambda: jnp.where(h >= 0, jnp.exp(h), h),
        lambda: jnp.where(h < 0, -1.0, h), lambda: jnp.clip(h, -0.2, 0.3),
        lambda: jnp.clip(h, 0.1, 0.3), lambda: jnp.sign(h) * jnp.log1p(jnp.abs(h)),
    ][choice]()  # fmt: skip


def looped(var, x, width, choice):
    n = x.shape[-1]
    kernels = jnp.stack([var("kernel", n, n), var("kernel", n, n)])
    top = jnp.abs(x).max(-1, keepdims=True)

    def step(h, kernel):
        h = jnp.tanh(h @ kernel) / (
            1.0 + (top if choice % 2 else jnp.abs(h).max(-1, keepdims=True))
        )
        return h, h.sum(-1)

    h, totals = lax.scan(step, x, kernels)
    return h + x * (1.0 + totals.sum(0)[..., None])


def in_calls(var, x, width, choice):
    """Alike slices through calls of their own."""

    @jax.jit
    def deviation(h):
        return jnp.std(h, -1, keepdims=True)

    h = conv(var, x, width, 1)
    h = (h - jnp.mean(h, -1, keepdims=True)) / (deviation(h) + 1e-2)
    h = jax.checkpoint(lambda h: h * 2.0)(h) if choice % 2 else h
    return h * var.vector("scale", h)


OPERATIONS = [
    plain, residual, towers, split, gated, sliced, padded, depthwise, grouped, batch_norm,
    layer_norm, group_norm, excited, pooled, attended,
]  # fmt: skip
# What is exact, free or neither by signs, constants and roles; each was wrong once.
HARD = [
    powers, standardized, instance_norm, divided, guarded, quantized, attended_places, shuffled,
    shuffled_groups, reshaped, picked, looped, in_calls,
]  # fmt: skip


def head(var, x, choice):
    flat = x.reshape(x.shape[0], -1)
    return dense(var, relu(dense(var, flat, 7)) if choice % 2 else x.mean((1, 2)), CLASSES)


def network(program):
    """The function of a program, and its variables."""
    operations, last = program

    def run(var, x):
        x = relu(conv(var, x, 5))
        for operation, width, choice in operations:
            x = operation(var, x, width, choice)
        return head(var, x, last)

    drawn = Variables()
    jax.eval_shape(lambda x: run(drawn, x), jax.ShapeDtypeStruct(IMAGE, jnp.float32))
    return lambda values, x: run(Variables(values), x), drawn.values
