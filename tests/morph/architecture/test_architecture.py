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
import numpy as np
import optax
import pytest
from flax import linen as nn

import morph
import regularizers as reg
from morph import Architecture, ArchitectureError
from regularizers.primitives.axes import Product, Sum


class Net(nn.Module):
    """Two concatenated convolutions, batch norm, flatten, two dense layers: every kind of axis."""

    @nn.compact
    def __call__(self, x, train=False):
        x = jnp.concatenate(
            [nn.Conv(5, (3, 1), name="left")(x), nn.Conv(7, (1, 1), name="right")(x)], axis=-1
        )
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Dense(6, name="hidden")(x.reshape((x.shape[0], -1))))
        return nn.Dense(3, name="head")(x)


MODEL = Net()
X = jax.random.normal(jax.random.key(1), (2, 2, 3, 4))
ALIVE = {
    "left": np.array([True, False, True, True, False]),
    "right": np.arange(7) % 3 > 0,
    "hidden": np.arange(6) < 4,
}


@pytest.fixture(scope="module")
def variables():
    """Every leaf random, so that no channel is zero by accident."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), X)
    leaves, treedef = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        treedef,
        [
            jax.random.uniform(k, leaf.shape, minval=0.5, maxval=1.5)
            for k, leaf in zip(keys, leaves, strict=True)
        ],
    )


@pytest.fixture(scope="module")
def graph(variables):
    return reg.trace_channels(MODEL.apply, variables, X)


@pytest.fixture(scope="module")
def shrunk(graph):
    return morph.shrink(graph, ALIVE)


@pytest.fixture
def data(shrunk):
    return json.loads(json.dumps(shrunk.to_json()))


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# What it is


def test_says_what_every_group_became(shrunk):
    assert shrunk.widths == {"left": 3, "right": 4, "hidden": 4}
    assert shrunk.seed_widths == {"left": 5, "right": 7, "hidden": 6}
    assert shrunk.groups["left"].parents == (0, 2, 3)
    assert shrunk.resized == {"left", "right", "hidden"}
    assert shrunk.shape("params/norm/scale") == (7,)
    assert shrunk.shape("params/hidden/kernel") == (2 * 3 * 7, 4)
    assert shrunk.variables["params/hidden/kernel"].axes == (
        Product((6, Sum(("left", "right")))),
        "hidden",
    )
    assert str(shrunk).splitlines()[1].split() == ["left", "5", "3", "resized"]


def test_of_seed_changes_nothing(graph, variables):
    seed = Architecture.of_seed(graph)
    assert seed.resized == frozenset()
    assert seed.widths == graph.widths
    assert_same(seed.take(variables), variables)
    assert str(seed).splitlines()[1].split() == ["left", "5", "5"]


def test_counts_of_layers_equal_those_of_the_costs(graph, shrunk):
    for arch in (shrunk, Architecture.of_seed(graph)):
        assert sum(arch.flops().values()) == reg.flops(graph)(arch.widths)
        assert sum(arch.parameters().values()) == reg.model_size(graph)(arch.widths)


def test_abstract_is_what_take_would_give(graph, shrunk, variables):
    small = shrunk.abstract(variables)
    assert small == jax.eval_shape(shrunk.take, variables)
    fresh = shrunk.with_parents({"left": (0, -1, -1, 2)}).abstract(variables)
    assert fresh["params"]["left"]["kernel"].shape == (3, 1, 4, 4)


# Taking


def test_take_slices_every_axis(shrunk, variables):
    small = shrunk.take(variables)["params"]
    left, right, hidden = (np.flatnonzero(ALIVE[name]) for name in ("left", "right", "hidden"))
    joined = np.concatenate([left, 5 + right])
    params = variables["params"]
    assert_same(small["left"]["kernel"], params["left"]["kernel"][..., left])
    assert_same(small["norm"]["bias"], params["norm"]["bias"][joined])
    merged = (np.arange(6)[:, None] * 12 + joined[None, :]).reshape(-1)
    assert_same(small["hidden"]["kernel"], params["hidden"]["kernel"][merged][:, hidden])
    assert_same(small["head"]["bias"], params["head"]["bias"])


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adam(0.1),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda step: 0.1)),
    ],
    ids=["momentum", "adam", "chain"],
)
@pytest.mark.promotes
def test_take_slices_optimizer_states(shrunk, variables, optimizer):
    params = variables["params"]
    state = optimizer.update(params, optimizer.init(params), params)[1]
    small = shrunk.take(state)
    fresh = optimizer.init(shrunk.take(params))
    assert jax.tree.structure(small) == jax.tree.structure(fresh)
    assert shapes(small) == shapes(fresh)


@pytest.mark.promotes
def test_momenta_are_those_of_the_kept_channels(shrunk, variables):
    params = variables["params"]
    for optimizer in (optax.sgd(0.1, momentum=0.9), optax.adam(0.1)):
        _, state = optimizer.update(params, optimizer.init(params), params)
        small = shrunk.take(params)
        _, expected = optimizer.update(small, optimizer.init(small), small)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), shrunk.take(state), expected
        )


def test_states_without_arrays_of_the_network_pass(shrunk, variables):
    optimizer = optax.sgd(lambda step: 0.1)  # its only leaf is a step counter
    state = optimizer.init(variables["params"])
    assert len(jax.tree.leaves(state)) == 1
    assert_same(shrunk.take(state), state)
    assert shrunk.take({}) == {}


def test_take_works_on_abstract_variables(shrunk, variables):
    small = shrunk.take(jax.eval_shape(lambda: variables))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(small))
    assert shapes(small) == shapes(shrunk.take(variables))


def test_take_works_under_jit_and_keeps_dtypes(shrunk, variables):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    assert_same(jax.jit(shrunk.take)(half), shrunk.take(half))
    assert {leaf.dtype for leaf in jax.tree.leaves(shrunk.take(half))} == {jnp.dtype("bfloat16")}


def test_take_accepts_only_params(shrunk, variables):
    assert_same(shrunk.take(variables["params"]), shrunk.take(variables)["params"])


def test_compact_function_equals_the_masked_one(graph, shrunk, variables):
    masked = graph.mask(variables, ALIVE)
    small = morph.compact(MODEL.apply, shrunk)(shrunk.take(variables), X)
    np.testing.assert_allclose(small, MODEL.apply(masked, X), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_clones_divide_their_consumers(graph, variables, dtype):
    cloned = Architecture.of_seed(graph).with_parents(
        {"left": (0, 1, 2, 3, 4, 0, 0), "hidden": (5, 4, 3, 2, 1, 0, 0, 1)}
    )
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    wide = cloned.take(variables)
    assert wide["params"]["head"]["kernel"].dtype == dtype
    kernel = variables["params"]["head"]["kernel"]
    assert_same(wide["params"]["head"]["kernel"][5], kernel[0] / 2)
    assert_same(wide["params"]["head"]["kernel"][3], kernel[2])
    assert_same(
        wide["params"]["left"]["bias"][5:], jnp.repeat(variables["params"]["left"]["bias"][:1], 2)
    )
    if dtype == jnp.float32:
        np.testing.assert_allclose(
            morph.compact(MODEL.apply, cloned)(wide, X), MODEL.apply(variables, X), rtol=1e-5
        )


# Chaining


def seed_of(architecture, variables):
    """The architecture that changes nothing about the network that another one made."""
    small_fn = morph.compact(MODEL.apply, architecture)
    return Architecture.of_seed(reg.trace_channels(small_fn, architecture.abstract(variables), X))


def test_chained_shrinks_are_one(graph, shrunk, variables):
    second = seed_of(shrunk, variables).with_parents({"left": (2, 0), "hidden": (0, 1, 3)})
    both = shrunk.then(second)
    assert both.widths == {"left": 2, "right": 4, "hidden": 3}
    assert both.seed_widths == graph.widths
    assert both.groups["left"].parents == (3, 0)
    assert_same(both.take(variables), second.take(shrunk.take(variables)))


def test_a_shrink_and_clones_are_one(graph, shrunk, variables):
    cost = reg.flops(graph)
    wide = morph.expand(seed_of(shrunk, variables), cost, cost(), warm=True)
    both = shrunk.then(wide)
    assert both.width_multiplier == wide.width_multiplier > 1.0
    assert_same(both.take(variables), wide.take(shrunk.take(variables)))
    np.testing.assert_allclose(
        morph.compact(MODEL.apply, both)(both.take(variables), X),
        MODEL.apply(graph.mask(variables, ALIVE), X),
        rtol=1e-5,
    )


def test_clones_of_clones_keep_the_function(graph, variables):
    """Sequential takes divide twice, the chain once: other weights, the same function."""
    first = Architecture.of_seed(graph).with_parents({"hidden": (0, 0, 1, 2, 3, 4, 5)})
    second = seed_of(first, variables).with_parents({"hidden": (0, 1, 1, 2, 3, 4, 5, 6)})
    both = first.then(second)
    assert both.groups["hidden"].parents == (0, 0, 0, 1, 2, 3, 4, 5)
    for small in (both.take(variables), second.take(first.take(variables))):
        np.testing.assert_allclose(
            morph.compact(MODEL.apply, both)(small, X), MODEL.apply(variables, X), rtol=1e-5
        )


def test_fresh_channels_stay_fresh(shrunk, variables):
    second = seed_of(shrunk, variables).with_parents({"left": (0, -1, 2)})
    assert shrunk.then(second).groups["left"].parents == (0, -1, 3)


def test_chaining_merges_reports(shrunk, variables):
    first = shrunk.with_parents({}, report={"budget": 3, "cycle": 1})
    second = seed_of(shrunk, variables).with_parents({}, report={"cycle": 2})
    assert first.then(second).report == {"budget": 3, "cycle": 2}


# Files


def test_save_and_load_is_the_identity(graph, shrunk, tmp_path):
    full = shrunk.with_parents(
        {"left": (0, 0, -1)}, width_multiplier=1.25, report={"budget": 0.5, "by": ["hand", None]}
    )
    for arch in (full, shrunk, Architecture.of_seed(graph)):
        arch.save(tmp_path / "architecture.json")
        assert Architecture.load(tmp_path / "architecture.json") == arch
        assert Architecture.load(str(tmp_path / "architecture.json")).to_json() == arch.to_json()
    assert [p.name for p in tmp_path.iterdir()] == ["architecture.json"]


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
        ArchitectureError, match=r"a.json: changed since .* take its entry \"sha256"
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


def test_a_loaded_architecture_rebuilds_the_network(shrunk, variables, tmp_path):
    shrunk.save(tmp_path / "a.json")
    loaded = Architecture.load(tmp_path / "a.json")
    assert_same(loaded.take(variables), shrunk.take(variables))
    assert_same(
        morph.compact(MODEL.apply, loaded)(loaded.take(variables), X),
        morph.compact(MODEL.apply, shrunk)(shrunk.take(variables), X),
    )


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


# Errors


def refused(data, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_json(data)


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
        (b'{"format": "morph-architecture", "report": {"a": NaN}}', "NaN is no number"),
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


def test_width_must_be_the_number_of_parents(data):
    data["groups"]["left"]["width"] = 4
    refused(data, "group 'left' says width 4, but lists 3 parents")


@pytest.mark.parametrize("parent", [5, 999])
def test_parents_must_be_channels_of_the_seed(data, parent):
    data["groups"]["left"]["parents"][1] = parent
    refused(data, r"group 'left' has a parent outside 0\.\.4")


def test_parents_below_fresh_are_refused(data):
    data["groups"]["left"]["parents"][1] = -2
    refused(data, "malformed architecture at groups/left/parents/1: -2 is less than")


def test_groups_in_axes_must_exist(data):
    data["variables"]["params/norm/scale"]["axes"] = ["lefty"]
    refused(data, "'params/norm/scale' names group 'lefty'; did you mean 'left'")
    data["variables"]["params/norm/scale"]["axes"] = [12]
    data["layers"][0]["out_axis"] = "xyz"
    refused(data, "'left' names group 'xyz'; known are 'left', 'right', 'hidden'")


def test_shapes_must_agree_with_axes(data):
    data["variables"]["params/norm/scale"]["shape"] = [13]
    refused(data, r"'params/norm/scale' has shape \[13\], but its axes measure \[12\]")


def test_roles_must_be_axes(data):
    data["variables"]["params/norm/scale"]["produces"] = [1]
    refused(data, "'params/norm/scale' has 1 axes, but produces or consumes along axis 1")


def test_dtypes_must_exist(data):
    data["variables"]["params/norm/scale"]["dtype"] = "float31"
    refused(data, "'params/norm/scale' has dtype 'float31', which does not exist")


def test_layers_must_say_the_width_of_their_axes(data):
    data["layers"][0]["out"]["width"] = 4
    refused(data, "layer 'left' says out width 4 of 5, but its axis measures 3 of 5")


def test_axes_nested_without_end_are_refused(data):
    axis = 12
    for _ in range(5000):
        axis = {"sum": [axis]}
    data["variables"]["params/norm/scale"]["axes"] = [axis]
    refused(data, "nested too deeply")


def test_numbers_must_be_finite(data):
    data["layers"][0]["flop_coefficient"] = float("nan")
    refused(data, "not finite")


def test_fresh_channels_cannot_be_taken(shrunk, variables):
    fresh = shrunk.with_parents({"right": (0, -1)})
    with pytest.raises(ArchitectureError, match=r"group 'right' has fresh channels.*morph\.init"):
        fresh.take(variables)


def test_variables_that_do_not_fit_are_refused(shrunk, variables):
    with pytest.raises(ArchitectureError, match=r"has shape \[4\]; in the seed network .* \[7\]"):
        shrunk.take(shrunk.take({"params": {"right": variables["params"]["right"]}}))
    with pytest.raises(ArchitectureError, match="no leaf belongs to the architecture: found 'a/b'"):
        shrunk.take({"a": {"b": jnp.zeros((3, 4))}})


def test_chains_must_fit(graph, shrunk):
    with pytest.raises(
        ArchitectureError, match="'left' ends with width 3 in the first, and starts with 5"
    ):
        shrunk.then(Architecture.of_seed(graph))
    variables = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((3, 2))}
    other = reg.trace_channels(lambda v, x: x @ v["a"] @ v["b"], variables, jnp.zeros((1, 2)))
    with pytest.raises(ArchitectureError, match="cannot chain architectures: group 'a' is in only"):
        shrunk.then(Architecture.of_seed(other))


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
