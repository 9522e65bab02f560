"""How functions of `regularizers` and `morph` are called, and what each argument refuses."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Primitive
from public.values import (
    ANYTHING,
    ARCH,
    ARCHITECTURES,
    ARRAYS,
    DTYPES,
    FLAGS,
    FLOPS,
    FUNCTIONS,
    GRAPH,
    GRAPHS,
    KEY,
    NAMES,
    NARROW,
    NUMBERS,
    OPTIMIZERS,
    OTHER,
    PATHS,
    PATTERNS,
    PULL,
    SGD,
    SHARES,
    TREES,
    WHOLES,
    N,
    V,
    X,
    array,
    fn,
)

import regularizers as reg

REGULARIZERS = {
    "Device": (
        {"name": "it", "peak_flops_per_s": {"float32": 1.0}, "bytes_per_s": 1.0, "source": ""},
        {
            "name": ANYTHING,
            "peak_flops_per_s": [{}, {"float32": math.nan}, {"float32": 0.0}],
            "bytes_per_s": [math.nan, math.inf, 0.0, -1.0],
            "source": ANYTHING,
        },
    ),
    "NetworkRegularizer": (
        {"graph": GRAPH, "cost": FLOPS},
        {
            "graph": GRAPHS,
            "cost": [None, GRAPH, OTHER, NARROW, reg.flops, "flops"],
            "penalty": ["gama", 3, {"a": 3}, {"b": "gamma"}],
            "combine": ["sum", 3],
            "l1_share": [*NUMBERS, -0.1, 1.1],
            "threshold": [*NUMBERS, -0.1],
            "inexact": FLAGS,
            "relative_to": ["stale"],
            "strengths": [3, {"a": math.nan}, {"a": -1.0}, {"a": "1"}, {"b": 1.0}, {3: 1.0}],
            "blocks": FLAGS,
        },
    ),
    "activation_bytes": (
        {"graph": GRAPH},
        {"graph": GRAPHS, "peak": FLAGS, "dtype": DTYPES},
    ),
    "calibrate": (
        {"cache": False},
        {
            "cache": FLAGS,
            "path": PATHS,
            "seconds": [*NUMBERS, 0.0, -1.0],
            "progress": FLAGS,
            "device": ["cpu", 3],
        },
    ),
    "cost_named": (
        {"graph": GRAPH, "spec": "flops"},
        {"graph": GRAPHS, "spec": [*NAMES, None, "", "flop", "nan*flops", "-1*flops"]},
    ),
    "cost_of_work": (
        {"graph": GRAPH, "name": "reads", "unit": "B", "price": lambda work, form: work.read},
        {
            "graph": GRAPHS,
            "name": [*NAMES, None],
            "unit": [*NAMES, None],
            "price": FUNCTIONS,
            "workload": ["work", 3, GRAPH],
        },
    ),
    "couples": (
        {"primitive": Primitive("of_nobody")},
        {"primitive": [None, "tanh", jnp.tanh], "zeros": ["some", 3], "price": [3, "free"]},
    ),
    "energy": (
        {"graph": GRAPH},
        {"graph": GRAPHS, "table": [None, {}, 3], "dtype": [*NAMES, "int7"]},
    ),
    "flops": ({"graph": GRAPH}, {"graph": GRAPHS}),
    "latency": (
        {"graph": GRAPH, "device": "V100"},
        {"graph": GRAPHS, "device": [None, "V1000", 3, FLOPS], "dtype": DTYPES},
    ),
    "model_size": ({"graph": GRAPH}, {"graph": GRAPHS, "dtype": DTYPES}),
    "nnx_function": ({}, {"model": [None, fn, nn.Dense(3), nnx.Linear]}),
    "proximal": (
        {"optimizer": SGD, "regularizer": PULL},
        {
            "optimizer": OPTIMIZERS,
            "regularizer": [None, SGD, FLOPS, GRAPH],
            "strength": [*NUMBERS, -1.0, array(2)],
            "decay": [*(bad for bad in NUMBERS if bad is not None), -1.0, 1.0],
            "every": [*WHOLES, 0],
            "saliency_from": [*WHOLES, -1],
        },
    ),
    "trace_channels": (
        {"fn": fn, "variables": V, "inputs": (X,)},
        {
            "fn": [*FUNCTIONS, V],
            "variables": [None, {}, {"a": "kernel", "z": 3}],
            "inputs": ANYTHING,
            "prunable": [*PATTERNS, "b"],
            "pinned": [*PATTERNS, "b"],
            "static": ANYTHING,
        },
    ),
}
MORPH = {
    "Budget": (
        {"regularizer": PULL, "budget": 0.5, "steps": 10},
        {
            "regularizer": [None, SGD, FLOPS, GRAPH],
            "budget": [math.nan, math.inf, -1.0, 0.0, "half", [1], 1.5],
            "steps": [*WHOLES, None],
            "every": [*WHOLES, 0],
            "settle": SHARES,
            "pull": [*NAMES, "half"],
            "min_width": [*WHOLES, 0],
            "floors": [3, {"a": 0}, {"a": "4"}, {"b": 2}],
            "round_to": [*WHOLES, 0],
        },
    ),
    "Network": (
        {"init": fn, "predict": fn, "forward": fn},
        {"init": FUNCTIONS, "predict": FUNCTIONS, "forward": FUNCTIONS},
    ),
    "compact": (
        {"fn": fn, "architecture": ARCH},
        {"fn": FUNCTIONS, "architecture": ARCHITECTURES, "rescale_means": FLAGS},
    ),
    "emits": (
        {"primitive": Primitive("of_nobody")},
        {"primitive": [None, "tanh", jnp.tanh]},
    ),
    "expand": (
        {"architecture": ARCH, "cost": FLOPS, "budget": FLOPS.seed},
        {
            "architecture": ARCHITECTURES,
            "cost": [None, OTHER, "flops", 3],
            "budget": [*NUMBERS, 0.0, -1.0, 1.0, 1e308],
            "round_to": [*WHOLES, 0],
            "warm": FLAGS,
        },
    ),
    "factorize": (
        {"kernel": V["a"], "roles": "io", "kind": "svd"},
        {
            "kernel": [*ARRAYS, array(0, 3), array(2, 3) * np.nan, array(2, 3) * 1j, array(2)],
            "roles": [*NAMES, None, "", "i", "xx", "ioo"],
            "kind": [*NAMES, None, "svdd"],
            "ranks": [0, *WHOLES, "bmf", {"q": 2}, {"r": 0}, {"r": 1.5}],
            "energy": [*NUMBERS, 0.0, 1.1],
            "error": [*NUMBERS, -0.1, 1.0],
            "cores": [*WHOLES, 0],
            "factors": [3, [[2, 3], [2, 4]]],
            "iterations": WHOLES,
            "spectra": ANYTHING,
            "path": NAMES,
        },
    ),
    "init": (
        {"init_fn": lambda key, x: V, "architecture": ARCH, "key": KEY, "args": (X,)},
        {
            "init_fn": FUNCTIONS,
            "architecture": ARCHITECTURES,
            "key": [None, 0, "key", X],
            "args": ANYTHING,
        },
    ),
    "linen_network": (
        {"module": nn.Dense(3)},
        {"module": [None, fn, nn.Dense, "Dense"], "train_kwarg": [*NAMES, "training"]},
    ),
    "load_variables": ({"path": "net"}, {"path": [None, *PATHS], "like": ANYTHING}),
    "native": (
        {"model": nn.Dense(3), "architecture": ARCH, "inputs": (X,)},
        {
            "model": [None, fn, nn.Dense],
            "architecture": ARCHITECTURES,
            "inputs": ANYTHING,
            "rescale_means": FLAGS,
            "static": ANYTHING,
        },
    ),
    "Metric": (
        {"measure": fn, "compute": float},
        {"measure": FUNCTIONS, "compute": FUNCTIONS, "merge": FUNCTIONS, "lower": FLAGS},
    ),
    "Task": (
        {},
        {
            "loss": [3, "mse"],
            "metrics": [3, fn, {"accuracy": 0.9}, {3: fn}],
            "augment": [3, "flip"],
            "distill": [3, "mse"],
            "decide": [3, "argmax"],
        },
    ),
    "mean_of": ({"values": fn}, {"values": FUNCTIONS, "lower": FLAGS}),
    "nnx_network": (
        {"build": lambda rngs: nnx.Linear(3, 3, rngs=rngs)},
        {"build": FUNCTIONS, "train_kwarg": [7, b"a", ["a"]]},
    ),
    "prune": (
        {
            "graph": GRAPH,
            "variables": V,
            "cost": FLOPS,
            "budget": 0.5,
            "loss": lambda v, batch: jnp.square(fn(v, batch)).mean(),
            "batches": [X],
        },
        {
            "graph": GRAPHS,
            "variables": TREES,
            "cost": [None, OTHER, "flops", 3],
            "budget": [math.nan, math.inf, -1.0, 0.0, "half", [1], 1.5],
            "loss": [3, "mse", lambda v, batch: X],
            "fn": [3, fn],
            "batches": [None, 3, []],
            "by": [7, "score"],
            "steps": [*WHOLES, 0],
            "blocks": FLAGS,
            "round_to": [*WHOLES, 0],
            "min_width": [*WHOLES, 0],
            "floors": [3, {"a": 0}, {"a": "4"}, {"b": 2}],
            "inexact": FLAGS,
            "heard": [3, "bar"],
        },
    ),
    "recalibrate": (
        {"forward": lambda v, batch: {}, "variables": {"params": V}, "batches": [X]},
        {"forward": FUNCTIONS, "variables": [None, 3, [V]], "batches": [None, 3, []]},
    ),
    "refit": (
        {
            "graph": GRAPH,
            "architecture": ARCH,
            "variables": V,
            "fn": fn,
            "batches": [X],
        },
        {
            "graph": GRAPHS,
            "architecture": ARCHITECTURES,
            "variables": TREES,
            "fn": [3, "mse"],
            "batches": [None, 3, []],
        },
    ),
    "shrink": (
        {"graph": GRAPH, "alive": {"a": np.ones(N, bool)}},
        {
            "graph": GRAPHS,
            "alive": [None, [True], {"b": [True]}, {"a": [True]}, {"a": np.ones(N)}, {"a": 3}],
            "removed": [3, "b", ["b"]],
            "min_width": WHOLES,
            "round_to": [*WHOLES, 0],
            "fold": FLAGS,
            "inexact": FLAGS,
        },
    ),
    "tensorize_plan": (
        {"graph": GRAPH, "variables": V, "rank": 2},
        {
            "graph": GRAPHS,
            "variables": TREES,
            "kind": [7, "svdd", {"a": 3}, {"b": "svd"}],
            "rank": [0, *WHOLES, "bmf", {"r": 0}, {"q": 2}],
            "energy": [*NUMBERS, 0.0, 1.1],
            "error": [*NUMBERS, -0.1, 1.0],
            "budget": [math.nan, math.inf, -1.0, 0.0, "half", [1], True, 1e308],
            "cost": [FLOPS, "flop", 3],
            "cores": [*WHOLES, 0],
            "factors": [3, {"b": [[2]]}],
            "calibration": [3, "x", (X[:1],), (X * np.nan,), ()],
            "response": [3, "affine"],
            "evaluate": [3, "loss"],
        },
    ),
    "tensorized": ({"fn": fn}, {"fn": FUNCTIONS, "mode": [*NAMES, "fast"]}),
}
