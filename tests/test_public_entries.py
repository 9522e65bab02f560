"""Every public function refuses arguments that make no sense: an error of ours that names them.

A table of how each function is called, and of what each of its arguments has to refuse. A public
function, or an argument of one, without a row fails.
"""

import importlib
import inspect
import math
from pathlib import Path

import numpy as np
import pytest
from public.rows import MORPH, REGULARIZERS
from public.rows_of_files import MORPH_COMPRESS, MORPH_EXPORT, MORPH_TENSORIZE
from public.rows_of_training import MORPH_TRAINING
from public.values import (
    ARCH,
    FLOPS,
    GRAPH,
    KEY,
    OTHER,
    PULL,
    N,
    V,
    X,
    fn,
)

import morph
from regularizers.checks import shown
from regularizers.errors import MorphError

PACKAGES = (
    "regularizers", "morph", "morph.training", "morph.compress", "morph.tensorize", "morph.export",
)  # fmt: skip
# Of these exactly one is given.
SIZES = {"rank", "energy", "error", "budget"}
# What messages call an argument.
CALLED = {
    "data": "not a network",
    "model": "nnx.Module",
    "opt_state": "the state of one pruned optimizer",
    "reference": "of JAX",
    "calibration": "representative data",
    "variables": "leaves are arrays",
    "x": "calibration set",
}
# What functions of ours give, and nobody writes; and settings, whose every field has a test.
MADE = {
    "Agreement", "Architecture", "Batch", "Bundle", "Calibration", "ChannelGraph", "Contents",
    "Cost", "Exported", "Factorized", "FixedPoint", "FixedPointCodes", "FixedPointPlan", "Group",
    "Pipeline", "Placement", "Sensitivity", "TensorizePlan",
}  # fmt: skip
ELSEWHERE = {
    "GrainBatches": "tests/morph/training/test_grain_batches.py",
    "Cycle": "tests/morph/cycle/test_checks.py",
    "CycleConfig": "tests/morph/cycle/test_checks.py",
    "CompressConfig": "tests/morph/test_settings.py",
}


def public():
    """Every function and class of the public packages, once, by name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            error = inspect.isclass(value) and issubclass(value, Exception)
            if callable(value) and not error:
                found[name] = value
    return found


def named(argument, value):
    """What tells which argument it is, and what it was."""
    inner = value if isinstance(value, dict | list | tuple) else [value]
    return [
        argument.removesuffix("s"),
        CALLED.get(argument, argument),
        *map(shown, [value, *inner]),
    ]


TABLE = {
    **REGULARIZERS, **MORPH, **MORPH_TRAINING, **MORPH_COMPRESS, **MORPH_TENSORIZE, **MORPH_EXPORT,
}  # fmt: skip


def test_every_public_function_and_argument_has_a_row():
    found = public()
    assert TABLE.keys() | MADE | ELSEWHERE.keys() == found.keys()
    assert all(Path(file).exists() for file in ELSEWHERE.values())
    for name, (_, bad) in TABLE.items():
        assert list(bad) == list(inspect.signature(found[name]).parameters), name


@pytest.mark.wrong_arrays
@pytest.mark.parametrize("name", TABLE)
def test_arguments_that_make_no_sense(name):
    entry = public()[name]
    signature = inspect.signature(entry)
    good, bad = TABLE[name]
    wrong = []
    for argument, values in bad.items():
        for value in values:
            given = {**good, argument: value}
            if argument in SIZES:
                given = {own: given[own] for own in given if own == argument or own not in SIZES}
            bound = signature.bind_partial()
            bound.arguments.update({n: given[n] for n in signature.parameters if n in given})
            what = f"{argument}={shown(value)}"
            try:
                found = entry(*bound.args, **bound.kwargs)
                list(found) if inspect.isgenerator(found) else None
            except MorphError as error:
                if not any(name in str(error) for name in named(argument, value)):
                    wrong.append(f"{what}: does not name it: {error}")
            except Exception as error:
                wrong.append(f"{what}: {type(error).__name__}: {str(error)[:150]}")
            else:
                wrong.append(f"{what} is accepted")
    assert not wrong, "\n".join(wrong)


PLAN = morph.tensorize_plan(GRAPH, V, rank=2)
METHODS = {
    "Cost": [
        lambda: FLOPS({"b": 4}),
        lambda: FLOPS({"a": math.nan}),
        lambda: FLOPS({"a": math.inf}),
        lambda: FLOPS({"a": -1}),
        lambda: FLOPS({"a": 1.5}),
        lambda: FLOPS({"a": "wide"}),
        lambda: FLOPS({"a": None}),
        lambda: FLOPS(3),
        lambda: FLOPS.smooth({"a": -0.5}),
        lambda: FLOPS.table([4]),
        lambda: FLOPS.of_layers("b"),
        lambda: FLOPS * math.nan,
        lambda: FLOPS * "2",
        lambda: FLOPS + OTHER,
    ],
    "ChannelGraph": [
        lambda: GRAPH.mask(V, None),
        lambda: GRAPH.mask(V, {"b": [True]}),
        lambda: GRAPH.mask({}, {"a": np.ones(N, bool)}),
        lambda: GRAPH.mask(V, {}, removed=["b"]),
        lambda: GRAPH.mask(V, {}, removed=3),
        lambda: GRAPH.fold(V, {"a": np.ones(N)}),
        lambda: GRAPH.explain("b"),
        lambda: GRAPH.explain(3),
    ],
    "NetworkRegularizer": [
        lambda: PULL({}),
        lambda: PULL(None),
        lambda: PULL({"a": V["a"][:2], "z": V["z"]}),
        lambda: PULL.alive({"b": V["a"]}),
    ],
    "Architecture": [
        lambda: ARCH.take({}),
        lambda: ARCH.take(None),
        lambda: ARCH.take({"params": {}}),
        lambda: ARCH.take({"b": V["a"]}),
        lambda: ARCH.take({"a": V["z"]}),
        lambda: ARCH.then(morph.Architecture.of_seed(GRAPH)),
        lambda: ARCH.then(GRAPH),
        lambda: ARCH.tensorized(PLAN.kernels),
        lambda: ARCH.from_json({}),
        lambda: ARCH.from_json(None),
    ],
    "plans": [
        lambda: PLAN.factorize({}),
        lambda: PLAN.factorize({"a": V["z"], "z": V["z"]}),
        lambda: PLAN.draw(None, KEY),
        lambda: PLAN.draw({"a": V["z"], "z": V["z"]}, KEY),
        lambda: morph.compact(fn, ARCH)(V, X),
        lambda: morph.compact(fn, ARCH)({}, X),
    ],
}


@pytest.mark.parametrize("of", METHODS)
def test_methods_refuse_likewise(of):
    wrong = []
    for k, call in enumerate(METHODS[of]):
        try:
            call()
        except MorphError:
            continue
        except Exception as error:
            wrong.append(f"{k}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{k} is accepted")
    assert not wrong, "\n".join(wrong)
