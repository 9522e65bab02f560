"""Long architecture files: refused or read in no time, and as the standard's validator says."""

import copy
import json
import time

import jax
import jsonschema
import numpy as np
import pytest

import morph
import regularizers as reg
from experiments.networks import build
from morph.architecture import schemas, spec
from morph.errors import ArchitectureError

GROUP, BIAS = "Dense_0", "params/Dense_0/bias"


@pytest.fixture(scope="module")
def document():
    model = build("mlp", input_shape=(8, 8, 1), num_classes=10, width=0.05)
    x = np.zeros((1, 8, 8, 1), np.float32)
    graph = reg.trace_channels(model.apply, jax.jit(model.init)(jax.random.key(0), x), x)
    alive = {name: np.arange(width) % 3 > 0 for name, width in graph.widths.items()}
    return morph.shrink(graph, alive).to_json()


def nested(depth):
    return 0 if not depth else {"sum": [nested(depth - 1)] * 2}


AXES = {
    "a long sum": ({"sum": [0] * 500_000}, "at most 64 factors and 100,000 parts"),
    "a sum that is none": ({"sum": [0] * 500_000 + [-1]}, "no axis"),
    "nested sums": (nested(15), "its axes measure"),
    "long sums of long sums": ({"sum": [{"sum": [0] * 400}] * 400}, "100,000 parts"),
    "a long product": ({"product": [2**60] * 2000}, "at most 64 factors"),
    "products of sums": ({"product": [{"sum": [1, 1]}] * 15_000}, "at most 64 factors"),
    "sums of sums": ({"sum": [{"sum": [0]}] * 200_000}, "more than 200,000 arrays"),
}


@pytest.mark.parametrize(("axis", "message"), AXES.values(), ids=AXES)
def test_long_axes_are_refused_in_no_time(document, tmp_path, axis, message):
    made = copy.deepcopy(document)
    made["variables"][BIAS]["axes"] = [axis]
    refused(made, tmp_path, message)


def test_very_many_axes_are_refused_in_no_time(document, tmp_path):
    made = copy.deepcopy(document)
    made["variables"][BIAS]["axes"] = [1] * 300_000
    refused(made, tmp_path, f"malformed architecture at variables/{BIAS}/axes: .* too long")


def refused(made, tmp_path, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    started = time.process_time()
    with pytest.raises(ArchitectureError, match=message):
        morph.Architecture.load(path)
    assert time.process_time() - started < 3.0  # measured: at most 0.7 s


def test_very_many_parents_are_refused_in_no_time(document, tmp_path):
    made = copy.deepcopy(document)
    made["groups"][GROUP].update(parents=[0] * 6_000_000, width=6_000_000)
    refused(made, tmp_path, "more than 16,777,216 bytes")
    made["layers"] = [{}] * 150_000
    made["groups"] = document["groups"]
    refused(made, tmp_path, "malformed architecture at layers/")


def test_many_parents_are_read_in_no_time(document, tmp_path):
    made = copy.deepcopy(document)
    made["groups"][GROUP].update(members=[BIAS] * 500_000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    started = time.process_time()
    assert len(morph.Architecture.load(path).groups[GROUP].members) == 500_000
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize(
    "axis",
    [5, 0, -1, 3.0, -3.0, True, 1.5, None, "a", [], {}, {"sum": []}, {"sum": 5},
     {"product": [1, "a"]},
     {"sum": [1], "product": [1]}, {"sum": [{"product": [2, {"sum": ["a", 3]}]}]},
     {"sum": [{"product": [2, None]}]}, {"other": [1]}],
)  # fmt: skip
def test_an_axis_is_what_the_standard_says(document, axis):
    schema = spec._validator().schema
    made = copy.deepcopy(document)
    made["variables"][BIAS]["axes"] = [axis]
    for values in ([1, 2], [1, -2], [1, True], [1, 1.5], ["a"]):
        made["groups"][GROUP]["parents"] = values
        standard = jsonschema.Draft202012Validator(schema).is_valid(made)
        assert schemas.validator(schema).is_valid(made) == standard
