"""The same of `morph.compress`, `morph.tensorize` and `morph.export`."""

import math

import numpy as np
from public.values import (
    ANYTHING,
    ARCH,
    ARRAYS,
    CUT,
    DATA,
    FLAGS,
    FUNCTIONS,
    GRAPH,
    GRAPHS,
    NAMES,
    NET,
    NETWORKS,
    OPTIMIZERS,
    PARAMS,
    PATHS,
    PATTERNS,
    PULL,
    SETS,
    SGD,
    SHARES,
    TREES,
    WHOLES,
    K,
    M,
    V,
    X,
    array,
    fn,
)

import morph
from morph import compress

MORPH_COMPRESS = {
    "NOfM": (
        {"n": 2, "m": 4},
        {"n": [*WHOLES, 0, 5], "m": [*WHOLES, 0], "axis": [1.5, "in", None]},
    ),
    "accuracy_of": (
        {"network": NET, "variables": {"params": V}, "data": DATA},
        {"network": NETWORKS, "variables": PARAMS, "data": SETS},
    ),
    "closest": (
        {"predict": fn, "graph": GRAPH, "variables": V, "x": X},
        {
            "predict": FUNCTIONS,
            "graph": GRAPHS,
            "variables": TREES,
            "x": [*ARRAYS, array(0, M), X * np.nan],
            "word_length": [*WHOLES, 1, 17, {"b": 8}, {"a": 1}],
            "distance": FUNCTIONS,
        },
    ),
    "clustered": (
        {"weights": array(5), "count": 2},
        {
            "weights": [*ARRAYS, array(5) * np.nan],
            "count": [*WHOLES, 0],
            "method": [*NAMES, "median"],
        },
    ),
    "compressed": (
        {
            "network": NET,
            "variables": {"params": V},
            "data": DATA,
            "config": compress.CompressConfig(),
        },
        {
            "network": NETWORKS,
            "variables": PARAMS,
            "data": SETS,
            "config": [None, "deep", {}, morph.CycleConfig()],
            "task": [3, "images", fn],
        },
    ),
    "equalized": ({"graph": GRAPH, "variables": V}, {"graph": GRAPHS, "variables": TREES}),
    "finished": (
        {"params": V, "opt_state": ()},
        {"params": ANYTHING, "opt_state": [None, (), SGD.init(V)]},
    ),
    "fixed_point_plan": (
        {"graph": GRAPH, "variables": V, "calibration": (X,)},
        {
            "graph": GRAPHS,
            "variables": TREES,
            "calibration": [None, 3, "x", (), (X[:1],), (X * np.nan,)],
            "word_length": [*WHOLES, 1, 17, {"b": 8}, {"a": 1}],
            "data_word_length": [*WHOLES, 1, 17, {"b": 8}, {"a": 1}],
            "dynamic": FLAGS,
            "activations": FLAGS,
            "criterion": [*NAMES, "l3"],
        },
    ),
    "given": ({}, {"shares": [None, 3, [0.5], {"a": math.nan}, {"a": -1.0}, {"a": "1"}]}),
    "gradual": (
        {"sparsity": 0.5, "start": 0, "end": 4, "every": 2},
        {
            "sparsity": SHARES,
            "start": [*WHOLES, 4],
            "end": [*WHOLES, 0],
            "every": [*WHOLES, 0],
            "initial": SHARES,
        },
    ),
    "iterative": (
        {"sparsities": (0.2, 0.5), "every": 2},
        {
            "sparsities": [None, 0.5, (), "half", (0.5, 0.2), (math.nan,), (1.0,), (0.1, "2")],
            "every": [*WHOLES, 0],
            "start": WHOLES,
        },
    ),
    "kept_counts": ({}, {"params": [None, {}, "params", 3, {"a": "kernel"}]}),
    "load": (
        {"path": "net.morph"},
        {"path": [None, *PATHS], "most_bytes": [*WHOLES, 0]},
    ),
    "one_shot": ({"sparsity": 0.5}, {"sparsity": SHARES, "at": WHOLES}),
    "pack": (
        {"variables": V},
        {
            "variables": [None, 3, [X], {"a": "kernel"}, {"a": None}],
            "architecture": [3, "architecture.json", ARCH],
            "network": [3, "mlp", {"width": math.nan}, {"at": PULL}],
            "coder": [*NAMES, "zip"],
        },
    ),
    "pruned": (
        {"optimizer": SGD, "schedule": compress.one_shot(0.5)},
        {
            "optimizer": OPTIMIZERS,
            "schedule": [None, 0.5, SGD, (0.5,)],
            "distribution": [None, 7, "unfair"],
            "patterns": PATTERNS,
        },
    ),
    "same": ({"one": V, "other": V}, {"one": [{"a": "b"}], "other": [{"a": "b"}]}),
    "save": (
        {"path": "net.morph", "variables": V},
        {"path": [None, *PATHS], "variables": [None, 3, [X]], "more": ANYTHING},
    ),
    "sensitivity": (
        {"network": NET, "variables": {"params": V}, "data": DATA},
        {
            "network": NETWORKS,
            "variables": PARAMS,
            "data": SETS,
            "sparsities": [None, 0.5, (), (math.nan,), (1.0,), (-0.1,), ("half",)],
            "patterns": [*PATTERNS, ["b"]],
            "examples": [*WHOLES, 0],
        },
    ),
    "shared": (
        {"params": V, "clusters": {"a": 2}},
        {
            "params": ANYTHING,
            "clusters": [None, 4, {"b": 4}, {"a": -1}, {"a": 1.5}, {"a": "4"}],
            "method": [*NAMES, "median"],
        },
    ),
    "ternarized": (
        {"graph": GRAPH, "variables": V, "keep": ()},
        {
            "graph": GRAPHS,
            "variables": TREES,
            "kernels": [*PATTERNS, "b"],
            "keep": [*PATTERNS, "b", ("first", "last")],
            "threshold": SHARES,
        },
    ),
    "train": (
        {
            "network": NET,
            "variables": {"params": V},
            "data": DATA,
            "optimizer": SGD,
            "steps": 1,
            "batch_size": 2,
        },
        {
            "network": NETWORKS,
            "variables": PARAMS,
            "data": SETS,
            "optimizer": OPTIMIZERS,
            "steps": [*WHOLES, 0],
            "batch_size": [*WHOLES, 0, 3],
            "seed": WHOLES,
            "task": [3, "images", fn],
        },
    ),
    "unpack": (
        {"data": b""},
        {"data": [None, "net.morph", 3, b"", b"net"], "most_bytes": [*WHOLES, 0]},
    ),
    "unpacked": ({}, {"tree": ANYTHING}),
}
MORPH_TENSORIZE = {
    "settled": (
        {"fn": fn, "variables": {**V, "a": CUT}, "inputs": (X,)},
        {
            "fn": FUNCTIONS,
            "variables": [None, {}],
            "inputs": ANYTHING,
            "static": ANYTHING,
        },
    ),
    "to_dot": ({}, {"kernels": [None, CUT, [CUT], V, {3: CUT}]}),
}
MORPH_EXPORT = {
    "compare": (
        {"reference": array(2, K), "logits": array(2, K), "labels": np.zeros(2, np.int32)},
        {
            "reference": [*ARRAYS, array(2), array(2, 4), array(0, K)],
            "logits": [*ARRAYS, array(2), array(2, 4)],
            "labels": [*ARRAYS[1:], np.zeros(3, np.int32), np.full(2, K)],
            "top": [None, 3, (), (0,), (1.5,), (K + 1,)],
        },
    ),
    "placement": ({"path": "net.tflite"}, {"path": [None, *PATHS], "tpu": [None, "coral", 3]}),
    "to_onnx": (
        {"fn": fn, "variables": V, "example": X, "path": "net.onnx"},
        {
            "fn": FUNCTIONS,
            "variables": ANYTHING,
            "example": [None, {}, (), "x"],
            "path": [None, *PATHS],
            "shapes": [3, "b, 5, 7", {"x": "b"}],
            "constraints": [3, [3]],
        },
    ),
    "to_onnx_int8": (
        {"fn": fn, "variables": V, "example": X, "path": "net.onnx", "calibration": X},
        {
            "fn": FUNCTIONS,
            "variables": ANYTHING,
            "example": [None, {}, (), "x"],
            "path": [None, *PATHS],
            "calibration": [None, "x", array(0, M), array(2, M + 1)],
            "keep": [3, ["nothing/*"]],
            "within": ["x", 0.0, -1.0, float("nan")],
        },
    ),
    "to_stablehlo": (
        {"fn": fn, "variables": V, "example": X, "path": "net.stablehlo"},
        {
            "fn": FUNCTIONS,
            "variables": ANYTHING,
            "example": [None, {}, (), "x"],
            "path": [None, *PATHS],
            "shapes": [3, "b, 5, 7", {"x": "b"}],
            "constraints": [3, [3]],
            "platforms": [3, (), "cpu", ("abacus",)],
        },
    ),
    "to_tflite": (
        {"fn": fn, "variables": V, "example": X, "path": "net.tflite", "calibration": X},
        {
            "fn": FUNCTIONS,
            "variables": ANYTHING,
            "example": [None, {}, (), "x"],
            "path": [None, *PATHS],
            "calibration": [None, "x", array(0, M), array(2, M + 1), X * np.nan],
        },
    ),
}
