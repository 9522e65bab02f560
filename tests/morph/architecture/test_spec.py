"""The file: what is written, and what is refused."""

import contextlib
import copy
import json
import math
import random
from dataclasses import replace
from importlib import resources

import jax
import jax.numpy as jnp
import jsonschema
import pytest
from every_axis import refused

from morph import Architecture, ArchitectureError


def test_a_file_that_was_changed_is_refused_until_its_checksum_is_taken_out(shrunk, tmp_path):
    place = tmp_path / "a.json"
    replace(shrunk, report={"accuracy": 0.5, "loss": math.nan}).save(place)
    data = json.loads(place.read_text())
    place.write_text(json.dumps(data, indent=3))  # another layout of the same is the same
    read = Architecture.load(place)
    assert read.report["loss"] is None  # JSON has no NaN
    data["report"]["accuracy"] = 0.9
    place.write_text(json.dumps(data))
    with pytest.raises(
        ArchitectureError, match=r"a.json: changed since .* remove the entry \"sha256"
    ):
        Architecture.load(place)
    del data["sha256"]
    place.write_text(json.dumps(data))
    assert Architecture.load(place).report["accuracy"] == 0.9
    assert replace(read, report={}) == replace(shrunk, report={})


def test_what_could_not_be_read_is_not_written(shrunk, tmp_path):
    for value in (2**64, jnp.ones(3), "\ud800"):
        with pytest.raises(ArchitectureError, match=r"a\.json would not be JSON that can be read"):
            replace(shrunk, report={"loss": value}).save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_people_can_read_the_file(shrunk, tmp_path):
    shrunk.save(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    data = json.loads(text)
    layers = {layer["path"]: layer for layer in data["layers"]}
    assert list(layers) == ["left", "right", "hidden", "head"]
    left = layers["left"]
    assert (left["op"], left["kernel"]) == ("conv", [3, 1])
    assert left["in"] == {"width": 4, "seed": 4}
    assert left["out"] == {"width": 3, "seed": 5}
    assert layers["hidden"]["in"] == {"width": 2 * 3 * 7, "seed": 2 * 3 * 12}
    assert left["flops"] == 2 * (2 * 2 * 3) * 3 * 4 * 3
    assert left["parameters"] == 3 * 4 * 3 + 3
    assert data["totals"]["seed_flops"] == 2 * (12 * 3 * 4 * 5 + 12 * 4 * 7 + 2 * (72 * 6 + 6 * 3))
    assert data["groups"]["left"]["members"][:2] == ["params/left/kernel", "params/left/bias"]
    # What people look for is near the top, and lists of numbers take one line.
    assert text.index('"totals"') < text.index('"layers"') < text.index('"variables"')
    assert '"parents": [0, 2, 3]' in text


def test_the_file_follows_the_shipped_schema(shrunk, tmp_path):
    shrunk.save(tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    text = resources.files("morph.architecture").joinpath("architecture.schema.json").read_text()
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(data)


def test_whole_floats_are_integers(data):
    """JSON has one kind of number: another writer may put 5.0 for 5."""

    def floats(node):
        if isinstance(node, dict):
            return {key: floats(value) for key, value in node.items()}
        if isinstance(node, list):
            return [floats(value) for value in node]
        return float(node) if type(node) is int else node

    loaded = Architecture.from_json(floats(data))
    assert loaded == Architecture.from_json(data)
    assert json.dumps(loaded.to_json()) == json.dumps(Architecture.from_json(data).to_json())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "a.json is not JSON"),
        (b"", "a.json is not JSON"),
        (b"\xff\xfe\x00", "a.json is not JSON"),
        (b"[" * 100_000, "a.json is not JSON"),
        (b"9" * 10_000, "a.json is not JSON"),
        (
            b'{"format": 1, "format": 2}',
            "not JSON: an object has the name 'format' twice",
        ),
        (b'{"format": "morph-architecture", "report": {"a": NaN}}', "NaN is not a number"),
        (b"[1, 2]", "not an architecture: expected an object.*found 'list'"),
        (b"null", "not an architecture: .*found 'NoneType'"),
        (b"{}", "not an architecture: .*found None"),
        (b'{"format": "onnx"}', "not an architecture: .*found 'onnx'"),
        (b'{"format": "morph-architecture", "version": 1}', "at the top level: .*required"),
        (b'{"format": "morph-architecture", "version": 2}', r"newer version \(format version 2"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArchitectureError, match=message) as caught:
        Architecture.load(tmp_path / "a.json")
    assert "a.json" in str(caught.value)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Architecture.load(tmp_path / "none.json")


def test_missing_fields_are_named(data):
    for field in data:
        if field != "format":
            broken = {key: value for key, value in data.items() if key != field}
            refused(broken, f"malformed architecture at the top level: '{field}' is a required")
    del data["groups"]["left"]["parents"]
    refused(data, "malformed architecture at groups/left: 'parents' is a required property")


def test_unknown_fields_are_refused(data):
    data["colour"] = "red"
    refused(data, "at the top level: Additional properties are not allowed .'colour'")


JUNK = [
    *(None, True, False, -1, 0, 1, 3, 10**30, 0.5, 4.0, float("inf"), float("nan")),
    *("", "left", "hidden", "float99", [], [0], [[]], {}),
    *({"sum": []}, {"product": ["left"]}, {"sum": [-1]}),
]


def mutate(data, rng):
    """Changes one random place of `data`: drops it, replaces it by junk or by another place."""
    places = []

    def walk(node):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in list(items):
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    walk(data)
    node, key = rng.choice(places)
    what = rng.randrange(5)
    if what == 0:
        del node[key]
    elif what == 1:
        other, name = rng.choice(places)
        node[key] = copy.deepcopy(other[name])
    elif what == 2 and isinstance(node, dict):
        node[rng.choice(["left", "x", "parents"])] = node.pop(key)
    elif what == 3 and isinstance(node[key], int):
        node[key] += rng.choice([-1, 1, 1000])
    else:
        node[key] = copy.deepcopy(rng.choice(JUNK))


@pytest.mark.parametrize("block", range(4))
def test_mutated_files_load_or_are_refused(data, variables, block):
    loaded = 0
    for seed in range(50 * block, 50 * (block + 1)):
        mutant = copy.deepcopy(data)
        mutate(mutant, random.Random(seed))
        try:
            architecture = Architecture.from_json(mutant)
        except ArchitectureError:
            continue
        loaded += 1
        # Whatever loads is usable.
        assert (
            Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        )
        assert str(architecture)
        assert sum(architecture.flops().values()) >= 0
        with contextlib.suppress(ArchitectureError):  # e.g. a fresh channel
            architecture.take(jax.eval_shape(lambda: variables))
    assert loaded < 50
