"""Networks of tokens: attention in its many forms, mixers, experts."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from corpus.case import DROPOUT, Case, from_nnx, integers, linen, normal
from flax import nnx

TOKENS = (2, 6, 5)
VOCABULARY = 13


def heads(x, count):
    """[..., T, count * d] -> [..., T, count, d]."""
    return x.reshape(*x.shape[:-1], count, -1)


def merged(x):
    """[..., T, h, d] -> [..., T, h * d]."""
    return x.reshape(*x.shape[:-2], -1)


def attention(q, k, v, bias=0.0):
    """Softmax attention: q [..., T, h, d], k and v [..., S, h, d], bias [..., h, T, S]."""
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / np.sqrt(q.shape[-1]) + bias
    return jnp.einsum("...hqk,...khd->...qhd", nn.softmax(scores), v)


def causal(length):
    """0 where a token may look, -1e9 where it may not: [1, 1, T, T]."""
    mask = nn.make_causal_mask(jnp.ones((1, length)))
    return jnp.where(mask > 0, 0.0, -1e9)


class Mixer(nn.Module):
    """MLPs over tokens and over channels in turn."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(7, (2, 2), strides=2)(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        y = nn.LayerNorm()(x).swapaxes(1, 2)
        x += nn.Dense(4)(nn.gelu(nn.Dense(5)(y))).swapaxes(1, 2)
        x += nn.Dense(7)(nn.gelu(nn.Dense(11)(nn.LayerNorm()(x))))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(1))


class GatedMLP(nn.Module):
    """Half of the channels gate the other half over tokens (gMLP)."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        u, v = jnp.split(nn.gelu(nn.Dense(22)(nn.LayerNorm()(x))), 2, -1)
        v = nn.Dense(x.shape[1])(nn.LayerNorm()(v).swapaxes(1, 2)).swapaxes(1, 2)
        return nn.Dense(3)(x + nn.Dense(7)(u * v))


class ViT(nn.Module):
    """A class token and learned positions; dropout in train mode."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(7, (2, 2), strides=2)(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        cls = self.param("cls", nn.initializers.zeros, (1, 1, 7))
        x = jnp.concatenate([jnp.tile(cls, (x.shape[0], 1, 1)), x], 1)
        x += self.param("positions", nn.initializers.normal(), (1, 5, 7))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        x += nn.MultiHeadDotProductAttention(
            num_heads=3, qkv_features=15, dropout_rate=0.2, deterministic=not train
        )(nn.LayerNorm()(x))
        y = nn.Dropout(0.3, deterministic=not train)(nn.gelu(nn.Dense(11)(nn.LayerNorm()(x))))
        x += nn.Dense(7)(y)
        return nn.Dense(3)(nn.LayerNorm()(x)[:, 0])


def windows(x, size):
    """[N, H, W, C] -> [N, windows, size * size, C]."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // size, size, w // size, size, c).swapaxes(2, 3)
    return x.reshape(n, -1, size * size, c)


def unwindowed(x, size, height, width):
    """The inverse of `windows`."""
    n, c = x.shape[0], x.shape[-1]
    x = x.reshape(n, height // size, width // size, size, size, c).swapaxes(2, 3)
    return x.reshape(n, height, width, c)


class WindowAttention(nn.Module):
    """Attention within windows, with a table of relative positions."""

    size: int
    shift: int

    @nn.compact
    def __call__(self, x):
        height, width = x.shape[1:3]
        x = windows(jnp.roll(x, (-self.shift, -self.shift), (1, 2)), self.size)
        q, k, v = (heads(part, 3) for part in jnp.split(nn.Dense(3 * 15)(x), 3, -1))
        at = np.stack(np.meshgrid(*[np.arange(self.size)] * 2, indexing="ij"), -1).reshape(-1, 2)
        apart = at[:, None] - at[None] + self.size - 1
        index = apart[..., 0] * (2 * self.size - 1) + apart[..., 1]
        rows = (2 * self.size - 1) ** 2
        table = self.param("table", nn.initializers.normal(), (rows, 3))
        bias = table[index.reshape(-1)].reshape(*index.shape, 3).transpose(2, 0, 1)[None, None]
        if self.shift:
            region = np.zeros((1, height, width, 1))
            region[:, -self.shift :] += 1.0
            region[:, :, -self.shift :] += 2.0
            region = np.asarray(windows(region, self.size))[..., 0]  # [1, windows, tokens]
            same = region[..., None] == region[..., None, :]
            bias = bias + jnp.asarray(np.where(same, 0.0, -100.0)[:, :, None], jnp.float32)
        y = nn.Dense(7)(merged(attention(q, k, v, bias)))
        return jnp.roll(unwindowed(y, self.size, height, width), (self.shift,) * 2, (1, 2))


class Swin(nn.Module):
    """Windows, shifted windows, and patches merged by strided slices."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(7, (1, 1))(x))
        for shift in (0, 1):
            x += WindowAttention(2, shift)(nn.LayerNorm()(x))
        x += nn.Dense(7)(nn.relu(nn.Dense(11)(x)))
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = nn.Dense(13, use_bias=False)(nn.LayerNorm()(x))
        return nn.Dense(3)(nn.LayerNorm()(x).mean((1, 2)))


class Axial(nn.Module):
    """Attention along rows, then along columns, of queries, keys and values made at once."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        for flip in (False, True):
            y = x.swapaxes(1, 2) if flip else x
            qkv = nn.DenseGeneral((3, 2, 5))(nn.LayerNorm()(y))
            y = attention(*(qkv[..., k, :, :] for k in range(3)))
            y = nn.DenseGeneral(7, axis=(-2, -1))(y)
            x += y.swapaxes(1, 2) if flip else y
        return nn.Dense(3)(x.mean((1, 2)))


def rotated(x):
    """Rotary positions: the halves of every head turn by an angle per position."""
    length, half = x.shape[-3], x.shape[-1] // 2
    rate = 1.0 / (100.0 ** (jnp.arange(half, dtype=jnp.float32) / half))
    angle = jnp.arange(length, dtype=jnp.float32).reshape(-1, 1, 1) * rate.reshape(1, 1, -1)
    cos, sin = jnp.cos(angle)[None], jnp.sin(angle)[None]
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Llama(nn.Module):
    """Rotary positions, grouped queries, RMSNorm and SwiGLU."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(VOCABULARY, 7)(ids)
        y = nn.RMSNorm()(x)
        dense = {"use_bias": False}
        q = rotated(heads(nn.Dense(36, name="q", **dense)(y), 6))
        k = rotated(heads(nn.Dense(12, name="k", **dense)(y), 2))
        v = heads(nn.Dense(12, name="v", **dense)(y), 2)
        k, v = jnp.repeat(k, 3, axis=2), jnp.repeat(v, 3, axis=2)
        x += nn.Dense(7, name="o", **dense)(merged(attention(q, k, v, causal(6))))
        y = nn.RMSNorm()(x)
        gate = nn.silu(nn.Dense(11, name="gate", **dense)(y))
        x += nn.Dense(7, name="down", **dense)(gate * nn.Dense(11, name="up", **dense)(y))
        return nn.Dense(VOCABULARY, **dense)(nn.RMSNorm()(x))


class Rotary(nn.Module):
    """Rotary positions of neighbouring channels, from a table that is a constant."""

    @nn.compact
    def __call__(self, x):
        count, width = 3, 10
        angle = np.arange(6.0)[:, None] / 100.0 ** (np.arange(width // 2)[None] / 5)
        cos, sin = (
            jnp.asarray(f(angle)[None, :, None], jnp.float32) for f in (np.cos, np.sin)
        )  # [1, T, 1, d / 2]

        def turned(x):
            pairs = x.reshape(*x.shape[:-1], -1, 2)
            a, b = pairs[..., 0], pairs[..., 1]
            return jnp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)

        q, k, v = (heads(nn.Dense(count * width)(x), count) for _ in range(3))
        return nn.Dense(3)(merged(attention(turned(q), turned(k), v)))


class GroupedQueries(nn.Module):
    """Six heads of queries share two of keys and values, by einsum and not by repetition."""

    @nn.compact
    def __call__(self, x):
        q = nn.DenseGeneral((6, 5))(x)
        k, v = nn.DenseGeneral((2, 5))(x), nn.DenseGeneral((2, 7))(x)
        q = q.reshape(*q.shape[:2], 2, 3, 5)
        weights = nn.softmax(jnp.einsum("ntgrd,nsgd->ngrts", q, k))
        y = jnp.einsum("ngrts,nsgd->ntgrd", weights, v)
        return nn.Dense(3)(y.reshape(*y.shape[:2], -1))


class MultiQuery(nn.Module):
    """All heads share one of keys and values; jax.nn.dot_product_attention."""

    @nn.compact
    def __call__(self, x):
        q = nn.DenseGeneral((3, 5))(x)
        k, v = nn.DenseGeneral((1, 5))(x), nn.DenseGeneral((1, 5))(x)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return nn.DenseGeneral(3, axis=(-2, -1))(nn.gelu(y))


class Alibi(nn.Module):
    """A penalty on distance, of another slope in every head; softplus and a parallel MLP."""

    @nn.compact
    def __call__(self, x):
        count = 4
        slopes = jnp.asarray([2.0 ** -(k + 1) for k in range(count)]).reshape(1, count, 1, 1)
        distance = jnp.abs(jnp.arange(6)[:, None] - jnp.arange(6)[None])
        x = nn.Dense(7)(x)
        y = nn.LayerNorm()(x)
        q, k, v = (heads(nn.Dense(count * 5)(y), count) for _ in range(3))
        a = attention(q, k, v, -slopes * distance[None, None].astype(jnp.float32) + causal(6))
        x += nn.Dense(7)(merged(a)) + nn.Dense(7)(nn.gelu(nn.Dense(11)(y)))
        return nn.Dense(3)(x)


class T5(nn.Module):
    """Bucketed relative positions, embedded per head; GEGLU; no biases."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(VOCABULARY, 7)(ids)
        apart = jnp.arange(6)[None] - jnp.arange(6)[:, None]
        far = 2 + jnp.log2(jnp.maximum(jnp.abs(apart), 1).astype(jnp.float32)).astype(jnp.int32)
        bucket = jnp.where(jnp.abs(apart) < 2, jnp.abs(apart), far) + jnp.where(apart > 0, 5, 0)
        bias = nn.Embed(10, 3, name="relative")(bucket).transpose(2, 0, 1)[None]
        y = nn.RMSNorm()(x)
        q, k, v = (heads(nn.Dense(15, use_bias=False)(y), 3) for _ in range(3))
        x += nn.Dense(7, use_bias=False)(merged(attention(q, k, v, bias)))
        y = nn.RMSNorm()(x)
        wide = nn.gelu(nn.Dense(11, use_bias=False)(y)) * nn.Dense(11, use_bias=False)(y)
        x += nn.Dense(7, use_bias=False)(wide)
        return nn.Dense(3)(nn.RMSNorm()(x))


class TiedLM(nn.Module):
    """Causal, positions learned, the output layer is the embedding."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(VOCABULARY, 7)
        x = embed(ids) + nn.Embed(6, 7, name="positions")(jnp.arange(6)[None])
        mask = nn.make_causal_mask(ids)
        x += nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15)(
            nn.LayerNorm()(x), mask=mask
        )
        x += nn.Dense(7)(nn.gelu(nn.Dense(11)(nn.LayerNorm()(x))))
        return embed.attend(nn.LayerNorm()(x))


class EncoderDecoder(nn.Module):
    """Two inputs, one embedding; the decoder looks at itself and at the encoder."""

    @nn.compact
    def __call__(self, source, target):
        embed = nn.Embed(VOCABULARY, 7)

        def attend(x, y=None, mask=None):
            y = nn.LayerNorm()(x) if y is None else y
            mixed = nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15)
            return x + mixed(nn.LayerNorm()(x), y, mask=mask)

        padding = nn.make_attention_mask(source > 0, source > 0)
        x = attend(embed(source), mask=padding)
        x = nn.LayerNorm()(x + nn.Dense(7)(nn.relu(nn.Dense(11)(x))))
        y = attend(embed(target), mask=nn.make_causal_mask(target))
        y = attend(y, x, nn.make_attention_mask(target > -1, source > 0))
        return nn.Dense(VOCABULARY)(nn.LayerNorm()(y))


class Decoder(nn.Module):
    """One step of decoding, with keys and values of earlier steps in a cache."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(VOCABULARY, 7)(ids)
        attend = nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15, decode=True)
        x += attend(nn.LayerNorm()(x))
        return nn.Dense(VOCABULARY)(nn.LayerNorm()(x))


def decoder():
    """The cache has room for six tokens, two are in it, and one comes in."""
    module, inputs = Decoder(), integers(VOCABULARY, 2, 1)
    case = linen(module, integers(VOCABULARY, 2, 6))
    cache = case.variables["cache"]["MultiHeadDotProductAttention_0"]
    cache["cache_index"] = jnp.asarray(2, jnp.int32)
    return Case(fn=case.fn, variables=case.variables, inputs=(inputs,), eval={"mutable": ["cache"]})


class Perceiver(nn.Module):
    """A few learned latents look at many inputs."""

    @nn.compact
    def __call__(self, x):
        latents = self.param("latents", nn.initializers.normal(), (3, 7))
        z = jnp.broadcast_to(latents, (x.shape[0], 3, 7))
        x = nn.LayerNorm()(nn.Dense(11)(x))
        z += nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=10)(nn.LayerNorm()(z), x)
        z += nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15)(nn.LayerNorm()(z))
        z += nn.Dense(7)(nn.gelu(nn.Dense(13)(nn.LayerNorm()(z))))
        return nn.Dense(3)(z.mean(1))


class FNet(nn.Module):
    """Tokens are mixed by a Fourier transform."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        x = nn.LayerNorm()(x + jnp.fft.fft(x, axis=1).real)
        x = nn.LayerNorm()(x + nn.Dense(7)(nn.gelu(nn.Dense(11)(x))))
        return nn.Dense(3)(x)


class LinearAttention(nn.Module):
    """Keys and values are summed up before queries come: causal, by a cumulative sum."""

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.DenseGeneral((3, width))(x) for width in (5, 5, 7))
        q, k = nn.relu(q), nn.relu(k)
        state = jnp.cumsum(jnp.einsum("nthd,nthe->nthde", k, v), 1)
        total = jnp.cumsum(k, 1)
        y = jnp.einsum("nthd,nthde->nthe", q, state)
        y /= jnp.einsum("nthd,nthd->nth", q, total)[..., None] + 1.0
        return nn.Dense(3)(merged(y))


class Experts(nn.Module):
    """Two of four experts per token, through a one-hot dispatch with a capacity."""

    @nn.compact
    def __call__(self, x):
        count, capacity = 4, 5
        x = nn.Dense(7)(x)
        tokens = nn.LayerNorm()(x).reshape(-1, 7)  # [S, C]
        probability = nn.softmax(nn.Dense(count)(tokens))
        gates, chosen = jax.lax.top_k(probability, 2)
        onehot = jax.nn.one_hot(chosen, count)  # [S, 2, E]
        position = (jnp.cumsum(onehot.reshape(-1, count), 0) - 1.0).reshape(onehot.shape)
        slot = jax.nn.one_hot((position * onehot).sum(-1).astype(jnp.int32), capacity)
        dispatch = onehot[..., None] * slot[:, :, None]  # [S, 2, E, K]
        combine = (gates[..., None, None] * dispatch).sum(1)
        wi = self.param("wi", nn.initializers.normal(), (count, 7, 11))
        wo = self.param("wo", nn.initializers.normal(), (count, 11, 7))
        inside = jnp.einsum("sek,sc->ekc", dispatch.sum(1), tokens)
        h = jnp.einsum("ekf,efc->ekc", nn.gelu(jnp.einsum("ekc,ecf->ekf", inside, wi)), wo)
        y = jnp.einsum("sek,ekc->sc", combine, h).reshape(x.shape)
        return nn.Dense(3)(x + y), (probability.mean(0) * onehot.mean((0, 1))).sum()


class ScatteredExperts(nn.Module):
    """One of four experts per token, which are scattered to it and gathered back."""

    @nn.compact
    def __call__(self, x):
        count, capacity = 4, 5
        x = nn.Dense(7)(x)
        tokens = x.reshape(-1, 7)  # [S, C]
        probability = nn.softmax(nn.Dense(count)(tokens))
        chosen = probability.argmax(-1)
        gate = jnp.take_along_axis(probability, chosen[:, None], 1)
        slot = (jnp.cumsum(jax.nn.one_hot(chosen, count, dtype=jnp.int32), 0) - 1)[
            jnp.arange(tokens.shape[0]), chosen
        ]
        inside = jnp.zeros((count, capacity, 7)).at[chosen, slot].add(tokens, mode="drop")
        expert = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
        h = expert(7, name="wo")(nn.relu(expert(11, name="wi")(inside)))
        y = gate * h.at[chosen, slot].get(mode="fill", fill_value=0.0)
        return nn.Dense(3)(x + y.reshape(x.shape))


class SortedExperts(nn.Module):
    """Tokens sorted by expert, one ragged product for all of them."""

    @nn.compact
    def __call__(self, x):
        count = 3
        tokens = nn.relu(nn.Dense(7)(x)).reshape(-1, 7)
        chosen = nn.Dense(count)(tokens).argmax(-1)
        order = jnp.argsort(chosen)
        sizes = jnp.bincount(chosen, length=count)
        wi = self.param("wi", nn.initializers.normal(), (count, 7, 11))
        wo = self.param("wo", nn.initializers.normal(), (count, 11, 7))
        h = nn.relu(jax.lax.ragged_dot(tokens[order], wi, sizes))
        y = jax.lax.ragged_dot(h, wo, sizes)[jnp.argsort(order)]
        return nn.Dense(3)((tokens + y).reshape(*x.shape[:-1], 7))


class Capsules(nn.Module):
    """Votes of lower capsules for upper ones, routed by agreement."""

    @nn.compact
    def __call__(self, x):
        lower = heads(nn.relu(nn.Dense(20)(x.reshape(x.shape[0], -1))), 4)  # [N, I, d]
        kernel = self.param("kernel", nn.initializers.normal(), (4, 3, 5, 7))
        votes = jnp.einsum("nid,iode->nioe", lower, kernel)
        routes = jnp.zeros(votes.shape[:-1])
        for _ in range(2):
            s = jnp.einsum("nio,nioe->noe", nn.softmax(routes), votes)
            square = (s * s).sum(-1, keepdims=True)
            out = s * jnp.sqrt(square + 1e-6) / (1.0 + square)
            routes += jnp.einsum("noe,nioe->nio", out, votes)
        return jnp.sqrt((out * out).sum(-1) + 1e-6)


class LoRA(nn.Module):
    """A low-rank product is added to every kernel, and to what it gives."""

    @nn.compact
    def __call__(self, x):
        def dense(x, width, name):
            y = nn.Dense(width, name=name)(x)
            down = nn.Dense(2, use_bias=False, name=f"{name}_a")(x)
            return y + 0.5 * nn.Dense(width, use_bias=False, name=f"{name}_b")(down)

        x = dense(x, 7, "first")
        return nn.Dense(3)(x + dense(nn.gelu(dense(x, 11, "up")), 7, "down"))


class TalkingHeads(nn.Module):
    """Scores are mixed between heads, queries and keys have unit length (QK-norm), ReLU^2."""

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.DenseGeneral((3, 5))(x) for _ in range(3))
        q, k = nn.LayerNorm(name="q_norm")(q), nn.LayerNorm(name="k_norm")(k)
        mix = self.param("mix", nn.initializers.normal(), (3, 4))
        weights = nn.softmax(jnp.einsum("nqhd,nkhd,hg->ngqk", q, k, mix))
        back = self.param("back", nn.initializers.normal(), (4, 3))
        y = jnp.einsum("ngqk,gh,nkhd->nqhd", weights, back, v)
        return nn.Dense(3)(nn.relu(nn.Dense(11)(merged(y))) ** 2)


class NNXBlock(nnx.Module):
    """A pre-norm block with attention, dropout and a gated MLP."""

    def __init__(self, *, rngs):
        self.embed = nnx.Embed(VOCABULARY, 7, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(7, rngs=rngs), nnx.RMSNorm(7, rngs=rngs)])
        self.attention = nnx.MultiHeadAttention(3, 7, 15, decode=False, rngs=rngs)
        self.gate, self.up = (nnx.Linear(7, 11, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(11, 7, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, ids):
        x = self.embed(ids)
        mask = nnx.make_causal_mask(ids)
        x += self.dropout(self.attention(self.norms[0](x), mask=mask))
        y = self.norms[1](x)
        x += self.down(self.dropout(nnx.silu(self.gate(y)) * self.up(y)))
        return self.embed.attend(x)


class NNXMixer(nnx.Module):
    """A mixer whose layers are a list of modules."""

    def __init__(self, *, rngs):
        self.patches = nnx.Conv(3, 7, (2, 2), strides=2, rngs=rngs)
        self.tokens = nnx.Sequential(
            nnx.Linear(4, 5, rngs=rngs), nnx.gelu, nnx.Linear(5, 4, rngs=rngs)
        )
        self.channels = nnx.Sequential(
            nnx.LayerNorm(7, rngs=rngs),
            nnx.Linear(7, 11, rngs=rngs),
            nnx.gelu,
            nnx.Linear(11, 7, rngs=rngs),
        )
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x += self.tokens(x.swapaxes(1, 2)).swapaxes(1, 2)
        return self.head((x + self.channels(x)).mean(1))


def nnx_lora():
    """NNX's own low-rank layers, in an MLP."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.LoRALinear(5, 7, lora_rank=2, rngs=rngs),
        nnx.gelu,
        nnx.LoRALinear(7, 11, lora_rank=3, rngs=rngs),
        nnx.gelu,
        nnx.Linear(11, 3, rngs=rngs),
    )
    return from_nnx(model, normal(*TOKENS))


IMAGES = (2, 4, 4, 3)
NETWORKS: dict[str, Callable[[], Case]] = {
    "mixer": lambda: linen(Mixer(), normal(*IMAGES)),
    "gated_mlp": lambda: linen(GatedMLP(), normal(*TOKENS)),
    "vit": lambda: linen(ViT(), normal(*IMAGES), train=DROPOUT),
    "swin": lambda: linen(Swin(), normal(*IMAGES)),
    "axial": lambda: linen(Axial(), normal(2, 2, 3, 5)),
    "llama": lambda: linen(Llama(), integers(VOCABULARY, 2, 6)),
    "rotary": lambda: linen(Rotary(), normal(*TOKENS)),
    "grouped_queries": lambda: linen(GroupedQueries(), normal(*TOKENS)),
    "multi_query": lambda: linen(MultiQuery(), normal(*TOKENS)),
    "alibi": lambda: linen(Alibi(), normal(*TOKENS)),
    "t5": lambda: linen(T5(), integers(VOCABULARY, 2, 6)),
    "tied_lm": lambda: linen(TiedLM(), integers(VOCABULARY, 2, 6)),
    "encoder_decoder": lambda: linen(
        EncoderDecoder(), integers(VOCABULARY, 2, 5), integers(VOCABULARY, 2, 3, seed=1)
    ),
    "decoder_cache": decoder,
    "perceiver": lambda: linen(Perceiver(), normal(*TOKENS)),
    "fnet": lambda: linen(FNet(), normal(*TOKENS)),
    "linear_attention": lambda: linen(LinearAttention(), normal(*TOKENS)),
    "experts": lambda: linen(Experts(), normal(*TOKENS)),
    "experts_scattered": lambda: linen(ScatteredExperts(), normal(*TOKENS)),
    "experts_sorted": lambda: linen(SortedExperts(), normal(*TOKENS)),
    "capsules": lambda: linen(Capsules(), normal(*TOKENS)),
    "lora": lambda: linen(LoRA(), normal(*TOKENS)),
    "talking_heads": lambda: linen(TalkingHeads(), normal(*TOKENS)),
    "nnx_transformer": lambda: from_nnx(
        NNXBlock(rngs=nnx.Rngs(0)), integers(VOCABULARY, 2, 6), train=DROPOUT
    ),
    "nnx_mixer": lambda: from_nnx(NNXMixer(rngs=nnx.Rngs(0)), normal(*IMAGES)),
    "nnx_lora": nnx_lora,
}
