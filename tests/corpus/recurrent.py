"""Networks that repeat: over time, over layers, until they settle."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from corpus.case import BATCH_NORM, Case, from_nnx, integers, linen, normal, plain
from flax import nnx
from jax import lax

SEQUENCE = (2, 4, 3)


class LSTM(nn.Module):
    """Two layers, the second one reads the sequence from its end."""

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.LSTMCell(5))(x)
        return nn.Dense(3)(nn.RNN(nn.LSTMCell(7), reverse=True, keep_order=True)(x))


class BidirectionalGRU(nn.Module):
    """Forward and backward, concatenated; sequences of different lengths."""

    @nn.compact
    def __call__(self, x):
        both = nn.Bidirectional(nn.RNN(nn.GRUCell(5)), nn.RNN(nn.GRUCell(7)))
        return nn.Dense(3)(both(x, seq_lengths=jnp.asarray([4, 3])))


class Attender(nn.Module):
    """A recurrent decoder that looks at all inputs before each step."""

    @nn.compact
    def __call__(self, x):
        memory = nn.tanh(nn.Dense(7)(x))
        cell, query, out = nn.GRUCell(5), nn.Dense(7, use_bias=False), nn.Dense(3)
        carry, outputs = jnp.zeros((x.shape[0], 5)), []
        for _ in range(2):
            weights = nn.softmax(jnp.einsum("nc,ntc->nt", query(carry), memory))
            carry, y = cell(carry, jnp.einsum("nt,ntc->nc", weights, memory))
            outputs.append(out(y))
        return jnp.stack(outputs, 1)


class Mamba(nn.Module):
    """A selective state space: every channel has states whose steps depend on the input."""

    @nn.compact
    def __call__(self, x):
        width, states, rank = 7, 5, 2
        x = nn.Dense(11)(x)
        y, z = jnp.split(nn.Dense(2 * width, use_bias=False)(nn.RMSNorm()(x)), 2, -1)
        y = nn.Conv(width, (3,), padding="CAUSAL", feature_group_count=width)(y)
        y = nn.silu(y)
        sizes = np.cumsum([rank, states])
        step, into, out = jnp.split(nn.Dense(rank + 2 * states, use_bias=False)(y), sizes, -1)
        step = nn.softplus(nn.Dense(width)(step))  # [N, T, C]
        rate = -jnp.exp(self.param("log_rate", nn.initializers.ones, (width, states)))
        skip = self.param("skip", nn.initializers.ones, (width,))

        def advance(h, at):
            step, y, into, out = at
            h = jnp.exp(step[..., None] * rate[None]) * h + (step * y)[..., None] * into[:, None]
            return h, (h * out[:, None]).sum(-1)

        over_time = [a.swapaxes(0, 1) for a in (step, y, into, out)]
        _, mixed = lax.scan(advance, jnp.zeros((x.shape[0], width, states)), over_time)
        y = mixed.swapaxes(0, 1) + y * skip[None, None]
        return nn.Dense(3)(x + nn.Dense(11, use_bias=False)(y * nn.silu(z)))


class StateSpace(nn.Module):
    """A diagonal, complex recurrence (S5, LRU), all steps at once by an associative scan."""

    @nn.compact
    def __call__(self, x):
        states = 5
        x = nn.Dense(7)(x)
        magnitude = self.param("magnitude", nn.initializers.ones, (states,))
        phase = self.param("phase", nn.initializers.ones, (states,))
        pole = jnp.exp(lax.complex(-jnp.exp(magnitude), phase))
        into, out = (
            lax.complex(*(self.param(f"{name}_{p}", nn.initializers.normal(), s) for p in "ri"))
            for name, s in (("into", (7, states)), ("out", (states, 7)))
        )
        driven = x.astype(jnp.complex64) @ into  # [N, T, states]
        poles = jnp.broadcast_to(pole, driven.shape)

        def joined(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        _, h = lax.associative_scan(joined, (poles, driven), axis=1)
        return nn.Dense(3)(x + nn.gelu((h @ out).real))


def gated_recurrence(v, x):
    """h[t] = a[t] h[t-1] + b[t], by an associative scan; gates open and close (HGRN, minGRU)."""
    gate, value = jax.nn.sigmoid(x @ v["gate"]), jnp.tanh(x @ v["value"])

    def joined(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    _, h = lax.associative_scan(joined, (1.0 - gate, gate * value), axis=1)
    return (h * jax.nn.silu(x @ v["output"])) @ v["head"]


class Block(nn.Module):
    """A residual block that can be stacked by a scan: (x, nothing) -> (x, nothing)."""

    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.Dense(7)(nn.relu(nn.Dense(11)(nn.LayerNorm()(x)))), None


class Stacked(nn.Module):
    """Layers whose variables are stacked, as a scan over them; rematerialized or not."""

    remat: bool = False

    @nn.compact
    def __call__(self, x):
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scanned = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scanned()(nn.Dense(7)(x), None)
        return nn.Dense(3)(x)


class ConvBlock(nn.Module):
    """A residual block with batch statistics, to be stacked by a scan."""

    train: bool

    @nn.compact
    def __call__(self, x, _):
        y = nn.relu(nn.BatchNorm(not self.train)(nn.Conv(5, (3, 3))(x)))
        return x + nn.Conv(7, (1, 1))(y), y.mean((1, 2))


class StackedConvolutions(nn.Module):
    """Stacked variables and stacked batch statistics; each layer also says something."""

    @nn.compact
    def __call__(self, x, train=False):
        scanned = nn.scan(
            ConvBlock,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, seen = scanned(train)(nn.Conv(7, (3, 3))(x), None)
        return nn.Dense(3)(x.mean((1, 2))), nn.Dense(2)(seen)


class Rematerialized(nn.Module):
    """Convolutions, each of them computed again in the backward pass."""

    @nn.compact
    def __call__(self, x):
        conv = nn.remat(nn.Conv)
        for width in (5, 7):
            x = nn.relu(conv(width, (3, 3))(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Shared(nn.Module):
    """One layer used again and again, its weights shared over depth (ALBERT, universal)."""

    @nn.compact
    def __call__(self, x):
        x, block = nn.Dense(7)(x), Block()
        for _ in range(2):
            x, _ = block(x)
        return nn.Dense(3)(x)


def equilibrium(v, x):
    """A fixed number of iterations towards a fixed point."""
    driven = x @ v["input"]
    z = lax.fori_loop(0, 3, lambda _, z: jnp.tanh(z @ v["state"] + driven), jnp.zeros_like(driven))
    return z @ v["head"]


def settled(v, x):
    """Iterations until nothing moves, and one more step that gradients go through."""

    driven = jax.nn.gelu(x @ v["first"]) @ v["input"]

    def step(z):
        return jax.nn.relu(z @ v["state"]) * 0.5 + jnp.tanh(driven)

    def moves(state):
        count, z, before = state
        return (jnp.abs(z - before).max() > 1e-2) & (count < 8)

    start = jnp.zeros((x.shape[0], v["state"].shape[0]))
    _, z, _ = lax.while_loop(moves, lambda s: (s[0] + 1, step(s[1]), s[1]), (0, step(start), start))
    return step(lax.stop_gradient(z)) @ v["head"]


class CRF(nn.Module):
    """The log-likelihood of tags along a chain: a logsumexp per step."""

    @nn.compact
    def __call__(self, x, tags):
        scores = nn.Dense(3)(nn.relu(nn.Conv(7, (3,))(x)))  # [N, T, K]
        moves = self.param("moves", nn.initializers.normal(), (3, 3))

        def step(alpha, score):
            return jax.nn.logsumexp(alpha[:, :, None] + moves[None], axis=1) + score, None

        alpha, _ = lax.scan(step, scores[:, 0], scores[:, 1:].swapaxes(0, 1))
        path = jnp.take_along_axis(scores, tags[..., None], -1).sum((1, 2))
        path += moves[tags[:, :-1], tags[:, 1:]].sum(1)
        return jax.nn.logsumexp(alpha, -1) - path


class NNXRecurrent(nnx.Module):
    """NNX's LSTM, and a projection."""

    def __init__(self, *, rngs):
        self.rnn = nnx.RNN(nnx.LSTMCell(3, 7, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.rnn(x)[:, -1]))


class NNXLayer(nnx.Module):
    """One layer of a stack."""

    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(7, rngs=rngs)
        self.up, self.down = nnx.Linear(7, 11, rngs=rngs), nnx.Linear(11, 7, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.gelu(self.up(self.norm(x))))


class NNXStack(nnx.Module):
    """Layers made by vmap, run by scan."""

    def __init__(self, *, rngs):
        self.stem, self.head = nnx.Linear(3, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)
        self.layers = nnx.vmap(NNXLayer, in_axes=0, out_axes=0)(rngs.split(3))

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, layer):
            return layer(x)

        return self.head(run(self.stem(x), self.layers))


NETWORKS: dict[str, Callable[[], Case]] = {
    "lstm": lambda: linen(LSTM(), normal(*SEQUENCE)),
    "bidirectional_gru": lambda: linen(BidirectionalGRU(), normal(*SEQUENCE)),
    "recurrent_attention": lambda: linen(Attender(), normal(*SEQUENCE)),
    "mamba": lambda: linen(Mamba(), normal(*SEQUENCE)),
    "state_space": lambda: linen(StateSpace(), normal(*SEQUENCE)),
    "gated_recurrence": lambda: plain(
        gated_recurrence,
        {"gate": (3, 7), "value": (3, 7), "output": (3, 7), "head": (7, 3)},
        normal(*SEQUENCE),
    ),
    "stacked": lambda: linen(Stacked(), normal(*SEQUENCE)),
    "stacked_remat": lambda: linen(Stacked(remat=True), normal(*SEQUENCE)),
    "stacked_convolutions": lambda: linen(
        StackedConvolutions(), normal(2, 3, 3, 3), train=BATCH_NORM
    ),
    "remat": lambda: linen(Rematerialized(), normal(2, 3, 3, 3)),
    "shared_layers": lambda: linen(Shared(), normal(*SEQUENCE)),
    "equilibrium": lambda: plain(
        equilibrium, {"input": (3, 7), "state": (7, 7), "head": (7, 2)}, normal(2, 3)
    ),
    "settled": lambda: plain(
        settled,
        {"first": (3, 11), "input": (11, 7), "state": (7, 7), "head": (7, 2)},
        normal(2, 3),
    ),
    "crf": lambda: linen(CRF(), normal(*SEQUENCE), integers(3, 2, 4)),
    "nnx_lstm": lambda: from_nnx(NNXRecurrent(rngs=nnx.Rngs(0)), normal(*SEQUENCE)),
    "nnx_stack": lambda: from_nnx(NNXStack(rngs=nnx.Rngs(0)), normal(*SEQUENCE)),
}
