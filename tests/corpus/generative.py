"""Networks that make things: diffusion, style, codes, flows, mixtures."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from corpus.case import Case, from_nnx, linen, normal
from flax import nnx
from jax import lax

IMAGES = (2, 4, 4, 3)
SAMPLE = {"rngs": {"sample": jax.random.key(2)}}


def sinusoidal(t, width):
    """Sines and cosines of a time [N] -> [N, width]."""
    rate = jnp.exp(-np.log(100.0) * jnp.arange(width // 2) / (width // 2))
    angle = t[:, None] * rate[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class TimeBlock(nn.Module):
    """A residual block whose norm is scaled and shifted by the time."""

    width: int

    @nn.compact
    def __call__(self, x, time):
        y = nn.Conv(self.width, (3, 3))(nn.silu(nn.GroupNorm(num_groups=None, group_size=1)(x)))
        scale, shift = jnp.split(nn.Dense(2 * self.width)(nn.silu(time))[:, None, None], 2, -1)
        y = nn.silu(nn.GroupNorm(num_groups=5)(y) * (1.0 + scale) + shift)
        y = nn.Conv(self.width, (3, 3))(y)
        return y + (x if x.shape[-1] == self.width else nn.Conv(self.width, (1, 1))(x))


class DiffusionUNet(nn.Module):
    """Time goes into every block, attention at the lowest resolution, skips on the way up."""

    @nn.compact
    def __call__(self, x, t):
        time = nn.Dense(7)(nn.silu(nn.Dense(11)(sinusoidal(t, 6))))
        a = TimeBlock(5)(nn.Conv(5, (3, 3))(x), time)
        b = TimeBlock(10)(nn.Conv(5, (3, 3), strides=2)(a), time)
        n, h, w, c = b.shape
        tokens = nn.GroupNorm(num_groups=2)(b).reshape(n, h * w, c)
        q, k, v = (nn.Dense(7)(tokens) for _ in range(3))
        mixed = nn.softmax(q @ k.swapaxes(1, 2) / np.sqrt(7.0)) @ v
        b += nn.Dense(c)(mixed).reshape(n, h, w, c)
        up = nn.Conv(5, (3, 3))(jax.image.resize(b, (n, 2 * h, 2 * w, c), "nearest"))
        y = TimeBlock(5)(jnp.concatenate([up, a], -1), time)
        return nn.Conv(3, (3, 3))(nn.silu(y))


class DiffusionTransformer(nn.Module):
    """Norms without parameters, modulated and gated by the time (adaLN-zero)."""

    @nn.compact
    def __call__(self, x, t):
        x = nn.Dense(7)(x)
        time = nn.silu(nn.Dense(5)(sinusoidal(t, 6)))
        parts = jnp.split(nn.Dense(6 * 7)(time)[:, None], 6, -1)

        def norm(x, shift, scale):
            return nn.LayerNorm(use_bias=False, use_scale=False)(x) * (1.0 + scale) + shift

        y = norm(x, *parts[:2])
        x += parts[2] * nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15)(y)
        x += parts[5] * nn.Dense(7)(nn.gelu(nn.Dense(11)(norm(x, *parts[3:5]))))
        return nn.Dense(3)(x)


class ModulatedConv(nn.Module):
    """A kernel of its own for every sample: scaled by a style, and normalized (StyleGAN2)."""

    features: int

    @nn.compact
    def __call__(self, x, style):
        n, h, w, c = x.shape
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, c, self.features))
        kernel = kernel[None] * nn.Dense(c)(style)[:, None, None, :, None]
        kernel *= lax.rsqrt((kernel * kernel).sum((1, 2, 3), keepdims=True) + 1e-2)
        # The samples stand side by side as groups of one convolution.
        x = x.transpose(1, 2, 0, 3).reshape(1, h, w, n * c)
        kernel = kernel.transpose(1, 2, 3, 0, 4).reshape(3, 3, c, n * self.features)
        y = lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=n,
        )
        return y.reshape(h, w, n, self.features).transpose(2, 0, 1, 3)


class StyleGAN(nn.Module):
    """A constant, styled by a mapping network; noise of a learned strength."""

    @nn.compact
    def __call__(self, z):
        style = nn.leaky_relu(nn.Dense(7)(nn.leaky_relu(nn.Dense(5)(z))))
        start = self.param("start", nn.initializers.normal(), (1, 2, 2, 11))
        x = jnp.broadcast_to(start, (z.shape[0], 2, 2, 11))
        x = nn.leaky_relu(ModulatedConv(13)(x, style))
        noise = jax.random.normal(self.make_rng("sample"), (*x.shape[:3], 1))
        strength = self.param("strength", nn.initializers.zeros, (13,))
        x += noise * strength.reshape(1, 1, 1, -1)
        x = jax.image.resize(x, (z.shape[0], 4, 4, 13), "bilinear")
        return nn.Conv(3, (1, 1))(nn.leaky_relu(ModulatedConv(5)(x, style)))


class Film(nn.Module):
    """Demodulation without grouped convolutions: inputs are scaled, outputs are rescaled."""

    @nn.compact
    def __call__(self, x, z):
        x = nn.relu(nn.Conv(7, (3, 3))(x))
        kernel = self.param("kernel", nn.initializers.normal(), (7, 11))
        style = nn.Dense(7)(z)
        y = (x * style[:, None, None]) @ kernel
        size = (style * style) @ (kernel * kernel)
        return nn.Conv(3, (1, 1))(nn.relu(y * lax.rsqrt(size + 1e-2)[:, None, None]))


class Hypernetwork(nn.Module):
    """The kernel of one layer is what another network says."""

    @nn.compact
    def __call__(self, x, z):
        h = nn.relu(nn.Dense(7)(x))
        code = nn.tanh(nn.Dense(5)(z))
        kernel = nn.Dense(7 * 11)(code).reshape(-1, 7, 11)
        bias = nn.Dense(11)(code)
        return nn.Dense(3)(nn.relu(jnp.einsum("ntc,nco->nto", h, kernel) + bias[:, None]))


class VAE(nn.Module):
    """Mean and variance of a code, which is drawn; the decoder shares nothing."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(11)(x))
        mean, log_variance = nn.Dense(5)(h), nn.Dense(5)(h)
        noise = jax.random.normal(self.make_rng("sample"), mean.shape)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        divergence = 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance).sum(-1)
        return nn.Dense(3)(nn.relu(nn.Dense(7)(z))), divergence


class VQVAE(nn.Module):
    """The nearest entry of a codebook stands for the code; gradients go straight through."""

    @nn.compact
    def __call__(self, x):
        z = nn.Dense(5)(nn.relu(nn.Dense(7)(x)))
        codes = self.param("codes", nn.initializers.normal(), (13, 5))
        apart = ((z[..., None, :] - codes[None, None]) ** 2).sum(-1)
        nearest = codes[apart.argmin(-1)]
        z = z + lax.stop_gradient(nearest - z)
        commitment = ((z - nearest) ** 2).mean()
        return nn.Dense(3)(nn.relu(nn.Dense(11)(z))), commitment


class Coupling(nn.Module):
    """Affine couplings: one half is scaled and shifted by what the other half says (RealNVP)."""

    @nn.compact
    def __call__(self, x):
        volume = jnp.zeros(x.shape[0])
        for flip in (False, True):
            a, b = jnp.split(x[..., ::-1] if flip else x, 2, -1)
            h = nn.relu(nn.Dense(7)(a))
            scale = nn.tanh(nn.Dense(2)(h))
            x = jnp.concatenate([a, b * jnp.exp(scale) + nn.Dense(2)(h)], -1)
            volume += scale.sum(-1)
        return x, volume


class MixtureOfSoftmaxes(nn.Module):
    """Several softmaxes over the vocabulary, weighted by another softmax."""

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(7)(x))
        weights = nn.softmax(nn.Dense(3)(h))
        contexts = nn.tanh(nn.Dense(3 * 5)(h)).reshape(*h.shape[:-1], 3, 5)
        return jnp.log((weights[..., None] * nn.softmax(nn.Dense(11)(contexts))).sum(-2))


class SpectrallyNormed(nn.Module):
    """A critic whose kernels are divided by their largest singular value; maxout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.SpectralNorm(nn.Dense(14))(x, update_stats=train)
        x = x.reshape(*x.shape[:-1], 7, 2).max(-1)
        return nn.SpectralNorm(nn.Dense(2))(x, update_stats=train)


class WeightNormed(nn.Module):
    """Kernels as direction and length; gated activations (WaveNet)."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5)(x)
        y = nn.WeightNorm(nn.Conv(14, (2,), padding="CAUSAL"))(x)
        a, b = jnp.split(y, 2, -1)
        return nn.Dense(3)(x + nn.Dense(5)(nn.tanh(a) * nn.sigmoid(b)))


class Autoregressive(nn.Module):
    """Masked kernels: an output sees only earlier inputs (MADE, PixelCNN)."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, 3, 7))
        mask = np.ones((3, 3, 1, 1), np.float32)
        mask[1, 1:], mask[2:] = 0.0, 0.0
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel * mask, (1, 1), "SAME", dimension_numbers=numbers)
        return nn.Conv(5, (1, 1))(nn.relu(nn.Conv(11, (1, 1))(nn.relu(x))))


class NNXAutoencoder(nnx.Module):
    """A variational autoencoder with methods, a list and a stream of its own."""

    def __init__(self, *, rngs):
        self.encoder = nnx.List(
            [nnx.Conv(3, 7, (3, 3), strides=2, rngs=rngs), nnx.Linear(28, 10, rngs=rngs)]
        )
        self.decoder = nnx.Sequential(
            nnx.Linear(5, 28, rngs=rngs), nnx.relu, nnx.Linear(28, 48, rngs=rngs)
        )
        self.rngs = rngs

    def __call__(self, x):
        h = nnx.relu(self.encoder[0](x)).reshape(x.shape[0], -1)
        mean, log_variance = jnp.split(self.encoder[1](h), 2, -1)
        noise = jax.random.normal(self.rngs.sample(), mean.shape)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        return self.decoder(z).reshape(x.shape)


NETWORKS: dict[str, Callable[[], Case]] = {
    "diffusion_unet": lambda: linen(DiffusionUNet(), normal(*IMAGES), normal(2, seed=1)),
    "diffusion_transformer": lambda: linen(
        DiffusionTransformer(), normal(2, 4, 3), normal(2, seed=1)
    ),
    "stylegan": lambda: linen(StyleGAN(), normal(2, 3), **SAMPLE),
    "film": lambda: linen(Film(), normal(2, 3, 3, 3), normal(2, 5, seed=1)),
    "hypernetwork": lambda: linen(Hypernetwork(), normal(2, 4, 3), normal(2, 3, seed=1)),
    "vae": lambda: linen(VAE(), normal(2, 3), **SAMPLE),
    "vq_vae": lambda: linen(VQVAE(), normal(2, 4, 3)),
    "coupling": lambda: linen(Coupling(), normal(2, 4)),
    "mixture_of_softmaxes": lambda: linen(MixtureOfSoftmaxes(), normal(2, 4, 3)),
    "spectral_norm": lambda: linen(
        SpectrallyNormed(), normal(2, 3), train={"train": True, "mutable": ["batch_stats"]}
    ),
    "weight_norm": lambda: linen(WeightNormed(), normal(2, 4, 3)),
    "autoregressive": lambda: linen(Autoregressive(), normal(2, 3, 3, 3)),
    "nnx_vae": lambda: from_nnx(NNXAutoencoder(rngs=nnx.Rngs(0)), normal(*IMAGES), **SAMPLE),
}
