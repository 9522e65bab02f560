"""One small network, and values that make no sense."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import morph
import regularizers as reg

M, N, K = 6, 8, 3


def fn(v, x):
    return jnp.tanh(x @ v["a"]) @ v["z"]


def array(*shape):
    return np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)


V, X = {"a": array(M, N), "z": array(N, K)}, array(2, M)
GRAPH = reg.trace_channels(fn, V, X)
FLOPS = reg.flops(GRAPH)
OTHER = reg.flops(
    reg.trace_channels(lambda v, x: fn({**v, "a": v["b"]}, x), {"b": V["a"], "z": V["z"]}, X)
)
NARROW = reg.flops(reg.trace_channels(fn, {"a": array(M, 4), "z": array(4, K)}, X))
PULL = reg.NetworkRegularizer(GRAPH, FLOPS, threshold=0.0)
ARCH = morph.shrink(GRAPH, {"a": np.arange(N) < 4})
NET = morph.Network(
    init=lambda key, x: {"params": V},
    predict=lambda v, x: fn(v["params"], x),
    forward=lambda v, x, key: (fn(v["params"], x), {}),
)
DATA = morph.Batch(X, np.zeros(2, np.int32))
SGD = optax.sgd(0.1)
KEY = jax.random.key(0)
CUT = morph.factorize(V["a"], "io", "svd", 2).value

NUMBERS = [math.nan, math.inf, -math.inf, "a lot", 1j, [1.0], True]
WHOLES = [-8, 1.5, math.nan, "4", True]
NAMES = [7, b"a", ["a"]]
PATTERNS = [7, b"a", [3]]
FLAGS = ["no", 1, 0.0]
GRAPHS = [None, FLOPS, V, "graph", fn]
FUNCTIONS = [None, morph, "fn", 3]
ARCHITECTURES = [None, GRAPH, {}, "architecture.json"]
ARRAYS = [None, "array", [1.0]]
PATHS = [3, b"net", V]
TREES = [None, {}, {"a": V["a"]}, {"a": V["z"], "z": V["a"]}]
PARAMS = [None, 3, [V], {"a": V}]  # of a network
OPTIMIZERS = [None, 0.1, optax.sgd, PULL]
SETS = [None, X, (X, X), "digits"]
NETWORKS = [None, fn, nn.Dense]
SHARES = [*NUMBERS, -0.1, 1.0]
DTYPES = ["int7", 8]
ANYTHING: list[object] = []
