"""Small networks of every kind, for the tests that must hold for all of them."""

import functools
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from corpus.annotations import HOOK as HOOK  # first: what is imported after it is checked
from corpus.lowering import share_work
from corpus.soundness import FAST
from flax import nnx

import regularizers as reg
from experiments import compress, measured
from morph.kernels import measure

# Compiling takes longer than running. XLA reads its flags when JAX first asks for a device.
FLAGS = [f"--{name}={str(value).lower()}" for name, value in FAST.items()]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_compilation_cache", False)  # there is none: no keys are made
jax.config.update("jax_numpy_rank_promotion", "raise")
share_work()
for timing in (measured, compress, measure):
    timing.SECONDS = 0.01  # a test needs a time, not a good one
gc.set_threshold(100_000, 20, 50)  # traces are many small objects


@dataclass(frozen=True, eq=False)
class Network:
    """A function, its variables filled with random numbers, and inputs."""

    fn: Callable[..., Any]
    variables: Any
    inputs: tuple[Any, ...]
    train: dict[str, Any]  # keyword arguments that switch to train mode, if there is one

    @functools.cached_property
    def graph(self):
        return reg.trace_channels(self.fn, self.variables, *self.inputs)


def random_like(tree, rng):
    """Numbers that no initializer would draw: nothing is zero, and variances are positive."""

    def draw(path, leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        value = rng.normal(size=leaf.shape) / np.sqrt(fan_in) + (0.3 if leaf.ndim == 1 else 0.0)
        positive = jax.tree_util.keystr(path).endswith("['var']")
        value = np.abs(value) + 0.5 if positive else value
        return jax.device_put(value.astype(leaf.dtype))  # jnp.asarray compiles for every shape

    return jax.tree_util.tree_map_with_path(draw, tree)


class Residual(nn.Module):
    """A stem, a block that is added to it, a strided block with a projection."""

    @nn.compact
    def __call__(self, x, train=False):
        def norm(x):
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.relu(norm(nn.Conv(7, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm(nn.Conv(5, (3, 3), use_bias=False)(x)))
        x = nn.relu(x + norm(nn.Conv(7, (3, 3), use_bias=False)(y)))
        y = nn.relu(norm(nn.Conv(6, (3, 3), strides=2, use_bias=False)(x)))
        y = norm(nn.Conv(11, (3, 3), use_bias=False)(y))
        x = nn.relu(y + nn.Conv(11, (1, 1), strides=2)(x))
        return nn.Dense(3)(x.mean((1, 2)))


def mean_pool(x):
    """`nn.avg_pool(x, (2, 2))`, whose divisor is an integer and mixes dtypes."""
    return nn.pooling.pool(x, 0.0, jax.lax.add, (2, 2), (1, 1), "VALID") / 4.0


class Towers(nn.Module):
    """Three towers side by side, one of them pooled."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        a = nn.relu(nn.Conv(7, (1, 1))(x))
        b = nn.gelu(nn.Conv(4, (3, 3))(nn.relu(nn.Conv(3, (1, 1))(x))))
        c = nn.max_pool(x, (3, 3), padding="SAME")
        x = jnp.concatenate([a, b, c], -1)
        return nn.Dense(3)(mean_pool(nn.Conv(6, (1, 1))(x)).mean((1, 2)))


class Flatten(nn.Module):
    """A convolution, flattened; dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.max_pool(nn.relu(nn.Conv(7, (3, 3))(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(0.25, deterministic=not train)(x)
        x = nn.relu(nn.Dense(11)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3)(x)


class Transformer(nn.Module):
    """A pre-norm block with attention and a gated MLP."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(11, name="embed")(x)
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=15, name="attention")(y)
        y = nn.RMSNorm()(x)
        gate, value = jnp.split(nn.Dense(14, name="gated")(y), 2, -1)
        x += nn.Dense(11, name="down")(nn.silu(gate) * value)
        return nn.Dense(5, name="head")(x)


class Grouped(nn.Module):
    """Group norm, a grouped, a depthwise and a transposed convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=3)(nn.Conv(12, (3, 3))(x)))
        x = nn.relu(nn.Conv(15, (3, 3), feature_group_count=3)(x))
        x = nn.relu(nn.Conv(15, (3, 3), feature_group_count=15)(x))
        x = nn.relu(nn.ConvTranspose(7, (2, 2), strides=(2, 2))(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Gated(nn.Module):
    """Squeeze and excite: a sigmoid scales every channel."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(7, (3, 3))(x))
        s = nn.relu(nn.Dense(3)(x.mean((1, 2))))
        x *= nn.sigmoid(nn.Dense(7)(s))[:, None, None, :]
        return nn.Dense(5)(x.mean((1, 2)))


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(13, 7)
        x = embed(ids)
        x += nn.Dense(7)(nn.relu(nn.Dense(11)(x)))
        return embed.attend(nn.LayerNorm()(x))


class NNXNet(nnx.Module):
    """Conv-norm-relu, a residual depthwise convolution, flatten, dense."""

    def __init__(self, *, rngs):
        self.stem = nnx.Conv(3, 7, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(7, rngs=rngs)
        self.depthwise = nnx.Conv(7, 7, (3, 3), feature_group_count=7, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)
        self.head = nnx.Linear(4 * 4 * 7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x += nnx.relu6(self.depthwise(x))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))


class NNXAttention(nnx.Module):
    """Attention without a residual stream."""

    def __init__(self, *, rngs):
        self.attention = nnx.MultiHeadAttention(3, 5, 15, 11, decode=False, rngs=rngs)
        self.head = nnx.Linear(11, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.attention(x)))


IMAGES, TOKENS = (2, 4, 4, 3), (2, 7, 5)
BATCH_NORM = {"train": True, "mutable": ["batch_stats"]}
DROPOUT = {"train": True, "rngs": {"dropout": jax.random.key(1)}}

# Module, shape of its input, and how it is called in train mode.
LINEN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "residual": (Residual, IMAGES, BATCH_NORM),
    "towers": (Towers, IMAGES, {}),
    "flatten": (Flatten, IMAGES, DROPOUT),
    "transformer": (Transformer, TOKENS, {}),
    "grouped": (Grouped, IMAGES, {}),
    "gated": (Gated, IMAGES, {}),
    "tied": (Tied, (2, 5), {}),
}
NNX: dict[str, tuple[Callable[..., nnx.Module], tuple[int, ...], dict[str, Any]]] = {
    "nnx": (NNXNet, IMAGES, BATCH_NORM | DROPOUT),
    "nnx_attention": (NNXAttention, TOKENS, {}),
}


def build(name):
    rng = np.random.default_rng(0)
    if name in LINEN:
        module, shape, train = LINEN[name]
        model = module()
        fn = model.apply
        x = rng.integers(0, 13, shape) if name == "tied" else rng.normal(size=shape)
        x = jax.device_put(x.astype(np.int32 if name == "tied" else np.float32))
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
    else:
        module, shape, train = NNX[name]
        model = nnx.jit(lambda: module(rngs=nnx.Rngs(params=0, dropout=1)))()
        fn, variables = reg.nnx_function(model)
        x = jax.device_put(rng.normal(size=shape).astype(np.float32))
    return Network(fn, random_like(variables, rng), (x,), train)


@pytest.fixture(scope="session")
def networks():
    """Builds each network once."""
    built: dict[str, Network] = {}

    def get(name):
        if name not in built:
            built[name] = build(name)
        return built[name]

    return get


def pytest_collection_finish():
    """What imports made stays as long as the tests: it is looked through for garbage once."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc):
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", [*LINEN, *NNX], indirect=True)


@pytest.fixture
def network(request, networks):
    """Every small network in turn."""
    return networks(request.param)


# Folders whose tests run under strict promotion: of our own functions, but for those of whole runs.
OURS = {
    "regularizers", "architecture", "budget", "compress", "kernels", "modules", "resize",
    "tensorize", "training",
}  # fmt: skip


@pytest.fixture(autouse=True)
def promotion(request):
    """Our functions mix no dtypes unawares; what runs optax's schedules has to be marked."""
    ours = OURS & set(request.path.parts[len(Path(__file__).parts) - 1 :])
    mixed = request.node.get_closest_marker("promotes")
    with jax.numpy_dtype_promotion("strict" if ours and not mixed else "standard"):
        yield


@pytest.fixture(autouse=True)
def annotations(request):
    """Annotations of arrays are checked, unless a test hands over wrong ones to see our message."""
    unchecked = request.node.get_closest_marker("wrong_arrays") is not None
    jaxtyping.config.update("jaxtyping_disable", unchecked)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def rng():
    """The same random numbers in every test."""
    return np.random.default_rng(0)
