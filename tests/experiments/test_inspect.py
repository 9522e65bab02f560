"""`python -m experiments.inspect`: what it prints and draws, and what it says to nonsense."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import regularizers as reg
from experiments import inspect
from experiments.networks import build
from experiments.pictures import plots
from regularizers.named import cost_named

ROOT = Path(__file__).parents[2]
MODELS = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class Linen(nn.Module):
    features: int = 7

    @nn.compact
    def __call__(self, x, mask=None, train=False):
        x = nn.Dense(self.features)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        if mask is not None:
            x = x * mask
        x = jnp.sort(nn.Dense(4)(x))
        return nn.Dense(3)(x)


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(5, 7, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.outer = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        if isinstance(self.inner.kernel[...], jax.Array):
            assert isinstance(self.inner.kernel[...], jax.core.Tracer)
        return self.outer(self.dropout(nnx.relu(self.inner(x))))


class Needs(nn.Module):
    features: int

    def __call__(self, x):
        return x


class Samples(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        return nn.Dense(3)(x + jax.random.normal(self.make_rng("sample"), x.shape))


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x)
        return -x if x.sum() > 0 else x


def pair():
    variables = {"a": jnp.ones((5, 7)), "b": jnp.ones((7, 3))}
    return (lambda v, x: x @ v["a"] @ v["b"]), variables


def build_linen():
    return Linen(9)


def build_nnx(rngs):
    return NNX(rngs)


class Huge(nnx.Module):  # 4 TB, were it made
    def __init__(self, rngs):
        self.inner = nnx.Linear(1_000_000, 1_000_000, rngs=rngs)

    def __call__(self, x):
        return self.inner(x)[:, :3]


def scaled():
    return (lambda v, x: x * v["a"]), {"a": jnp.ones((1, 5))}


linen, nnx_model, ready, empty = Linen(), build_nnx(nnx.Rngs(0)), pair(), (lambda v, x: x, {})


class Space:
    inside = Linen(11)
"""


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """A user's own directory with a module of models."""
    (tmp_path / "own_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("import no_such_dependency\n")
    (tmp_path / "wrong_models.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_models", "broken_models", "wrong_models"):
        sys.modules.pop(name, None)


def launch(*arguments):
    inspect.main(["inspect", *arguments])


def document(capsys, *arguments):
    launch("--json", *arguments)
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments):
    """The one line that ends a command which cannot work; nothing else is printed."""
    with pytest.raises(SystemExit) as stop:
        launch(*arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("attribute", "groups"),
    [
        ("Linen", {"Dense_0": 7}),
        ("linen", {"Dense_0": 7}),
        ("build_linen", {"Dense_0": 9}),
        ("Space.inside", {"Dense_0": 11}),
        ("Samples", {"Dense_0": 7}),
        ("NNX", {"inner": 7}),
        ("nnx_model", {"inner": 7}),
        ("build_nnx", {"inner": 7}),
        ("pair", {"a": 7}),
        ("ready", {"a": 7}),
    ],
)
def test_every_kind_of_model(capsys, attribute, groups):
    data = document(capsys, f"--model=own_models:{attribute}", "--input=2,5")
    assert {group["name"]: group["width"] for group in data["groups"]} == groups


def test_no_weights_are_made(capsys):
    data = document(capsys, "--model=own_models:Huge", "--input=1,1000000")
    assert data["totals"]["parameters"] == 1e12 + 1e6


def test_inputs_by_keyword_and_static_arguments(capsys):
    command = ["--model=own_models:linen", "--input=2,5:bfloat16", "--input=mask=2,7:bool"]
    data = document(capsys, *command)
    assert data["inputs"] == [
        {"name": None, "shape": [2, 5], "dtype": "bfloat16"},
        {"name": "mask", "shape": [2, 7], "dtype": "bool"},
    ]
    assert data["groups"] == []  # the mask has one entry per unit, so that these must stay
    train = document(capsys, *command[:2], "--kwargs=train=True,mutable=['batch_stats']")
    assert [group["name"] for group in train["groups"]] == ["Dense_0"]


def test_json_is_the_graph(capsys):
    data = document(capsys, "--seed_network=resnet8", "--input=1,8,8,3")
    model = build("resnet8", input_shape=(8, 8, 3), num_classes=10)
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    flops, size = reg.flops(graph), reg.model_size(graph)
    assert list(data) == [
        "version", "model", "inputs", "groups", "layers", "costs", "pins", "unknown", "totals",
    ]  # fmt: skip
    assert {group["name"]: group["width"] for group in data["groups"]} == graph.widths
    for group in data["groups"]:
        members = graph.groups[group["name"]].members
        assert [(m["path"], m["axis"]) for m in group["members"]] == [
            (m.path, m.axis) for m in members
        ]
        assert group["exact"] is True
    layers = {layer["layer"]: layer for layer in data["layers"]}
    assert list(layers)[: len(graph.layers)] == list(graph.layers)
    assert layers["Block_1/Conv_1"]["operations"] == [
        {
            "op": "conv",
            "kernel": [1, 1],
            "in": 16,
            "out": 32,
            "in_axis": "ConvNormRelu_0/Conv_0",
            "out_axis": "Block_1/Conv_0",
            "count": 1,
        }
    ]
    assert layers["Block_1/Conv_1"]["flops"] == 2 * 4 * 4 * 16 * 32
    assert layers["Block_1/BatchNorm_0"]["parameters"] == 64
    for name, cost in (("flops", flops), ("parameters", size)):
        assert sum(layer[name] for layer in data["layers"]) == pytest.approx(cost())
        assert sum(layer[f"{name}_share"] for layer in data["layers"]) == pytest.approx(1)
        assert data["totals"][name] == cost()
        half = {group: width // 2 for group, width in graph.widths.items()}
        assert data["totals"][f"halved_{name}"] == pytest.approx(cost(half) / cost())
    assert data["totals"]["free_flops"] == 1
    assert data["totals"]["free_parameters"] == pytest.approx(1 - 10 / size())  # the last bias
    assert data["totals"]["equations"] > 50
    assert data["unknown"] == []


def test_costs_as_json(capsys):
    own = "0.5*flops + 0.5*edge_tpu"
    asked = ["edge_tpu", "V100", "size", "activation_peak", own]
    command = ["--seed_network=resnet8", "--input=1,8,8,3", "--cost=edge_tpu, V100,size,V100"]
    data = document(capsys, *command, "--cost=activation_peak", f"--cost={own}")
    assert [cost["name"] for cost in data["costs"]] == asked
    assert [cost["unit"] for cost in data["costs"]] == ["s", "s", "parameters", "B", "x seed"]
    model = build("resnet8", input_shape=(8, 8, 3), num_classes=10)
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    half = {name: width // 2 for name, width in graph.widths.items()}  # all are even
    for name, found in zip(asked, data["costs"], strict=True):
        cost = cost_named(graph, name)
        table = cost.table()
        assert found["seed"] == cost()
        assert found["halved"] == pytest.approx(cost(half) / cost())
        assert 0.2 < found["halved"] < 1
        assert sum(row["cost"] for row in found["layers"]) == pytest.approx(cost())
        assert sum(row["share"] for row in found["layers"]) == pytest.approx(1)
        assert [row["cost"] for row in found["layers"]] == [row.cost for row in table]
        assert [row["detail"] for row in found["layers"]] == [row.detail for row in table]
    rows = {row["layer"]: row for row in data["costs"][0]["layers"]}
    assert rows["Block_0/Conv_0"]["detail"] == "conv 3x3"
    assert rows["Block_0/BatchNorm_0"]["cost"] > 0  # not ResNet/Block_0/BatchNorm_0
    assert rows["(start, input, output)"]["share"] > 0.5


def test_costs_are_flops_and_size_unless_others_are_asked_for(capsys):
    data = document(capsys, "--model=own_models:pair", "--input=2,5")
    assert [(cost["name"], cost["seed"]) for cost in data["costs"]] == [
        ("flops", 2 * 2 * (5 * 7 + 7 * 3)),
        ("size", 5 * 7 + 7 * 3),
    ]
    # 7 is rounded up to 4.
    assert [cost["halved"] for cost in data["costs"]] == pytest.approx([4 / 7, 4 / 7])
    assert data["totals"]["halved_flops"] == pytest.approx(4 / 7)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_plot(capsys, models, ending):
    pytest.importorskip("matplotlib")
    command = ["--seed_network=mlp", "--input=1,4,4,1", "--cost=edge_tpu,V100"]
    launch(*command, f"--plot=costs.{ending}")
    assert f"Drawn: costs.{ending}" in capsys.readouterr().out
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    written = (models / f"costs.{ending}").read_bytes()
    assert written.startswith(start)
    assert len(written) > 5000


def test_json_and_a_plot_at_once(capsys, models):
    pytest.importorskip("matplotlib")
    document(capsys, "--seed_network=mlp", "--input=1,4,4,1", "--plot=costs.png")
    assert (models / "costs.png").exists()


def test_a_plot_without_matplotlib(capsys, monkeypatch):
    monkeypatch.setattr(plots, "_missing", ModuleNotFoundError("No module named 'matplotlib'"))
    message = failure(capsys, "--seed_network=mlp", "--plot=a.png")
    assert message.startswith("error: --plot=a.png: a plot needs packages that are not")


def test_a_cost_that_this_network_does_not_have(capsys):
    command = ["--model=own_models:scaled", "--input=2,5", "--cost=0.5*flops + 0.5*size"]
    assert "cannot add flops to a cost of another unit" in failure(capsys, *command)


def test_pins_are_grouped_by_reason_and_line_and_leave_out_ones(capsys):
    data = document(capsys, "--model=own_models:linen", "--input=1,5")
    pins = {pin["reason"]: pin for pin in data["pins"]}
    assert pins["axis of an input"]["axes"] == [
        {"path": "params/Dense_0/kernel", "axis": 0, "size": 5}
    ]
    output = [(axis["path"], axis["axis"]) for axis in pins["axis of an output"]["axes"]]
    assert output == [("params/Dense_2/bias", 0), ("params/Dense_2/kernel", 1)]
    (sort,) = [pin for reason, pin in pins.items() if "sort" in reason]
    line = next(n for n, text in enumerate(MODELS.splitlines(), 1) if "jnp.sort" in text)
    assert f"own_models.py:{line}" in sort["source"]
    assert len(sort["axes"]) == 3
    assert all(axis["size"] > 1 for pin in data["pins"] for axis in pin["axes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --model=package.module:attribute or --seed_network=NAME, found neither"),
        (["--model=a:b", "--seed_network=mlp"], "found both"),
        (["--model=own_models:linen"], "no --input; give the shape of every input"),
        (["--model=own_models", "--input=1"], "names no attribute; write package.module:attribute"),
        (["--model=nowhere:x", "--input=1"], "no module 'nowhere', neither in the current dir"),
        (["--model=broken_models:x", "--input=1"], "No module named 'no_such_dependency'"),
        (["--model=wrong_models:x", "--input=1"], "fails with RuntimeError: not today"),
        (["--model=own_models:linnen", "--input=1"], "has no 'linnen'; did you mean 'linen'"),
        (["--model=own_models:jnp", "--input=1"], "own_models:jnp is a module; --model must name"),
        (["--model=own_models:Needs", "--input=1"], "cannot build own_models:Needs(): TypeError"),
        (["--model=own_models:empty", "--input=1"], "the variables hold no arrays"),
        (["--model=own_models:linen", "--input=1,x"], "--input=1,x: '1,x' are no sizes"),
        (["--model=own_models:linen", "--input=1,-3"], "sizes must be positive, found '1,-3'"),
        (["--model=own_models:linen", "--input="], "sizes must be positive, found ''"),
        (["--model=own_models:linen", "--input=1:int31"], "no dtype 'int31'; did you mean 'int32'"),
        (["--model=own_models:linen", "--input=a b=1"], "'a b' is no name"),
        (["--model=own_models:linen", "--input=1", "--kwargs=train=no"], "cannot be read"),
        (["--model=own_models:linen", "--input=1", "--kwargs=3"], "a value without a name"),
        (["--model=own_models:linen", "--input=1", "--kwargs=**{}"], "** is not taken"),
        (["--model=own_models:pair", "--input=2,4"], "at float32[2, 4]: TypeError: dot_general"),
        (["--model=own_models:pair", "--input=2,5", "--input=1"], "check --input and --kwargs"),
        (["--model=own_models:Branches", "--input=2,5"], "use jnp.where or jax.lax.cond there"),
        (["--seed_network=mlp", "--input=1,2"], "takes one --input of batch, height, width"),
        (["--seed_network=mlpp"], "value should be one of <mlp|"),
        (["--seed_network=mlp", "--picture=a.gif"], "'.gif' is none of .svg, .html, .png"),
        (["--seed_network=mlp", "--picture=no/a.svg"], "there is no directory 'no'"),
        (["--seed_network=mlp", "--plot=a.jpg"], "--plot=a.jpg: '.jpg' is none of .png, .svg"),
        (["--seed_network=mlp", "--plot=no/a.png"], "there is no directory 'no'"),
        (["--seed_network=mlp", "--cost=edge_tpo"], "did you mean 'edge_tpu'"),
        (["--seed_network=mlp", "--cost=flops,V10"], "no cost 'V10'; did you mean 'V100'"),
        (["--seed_network=mlp", "--cost=flops+sise"], "no cost 'sise' in 'flops+sise'; did you"),
        (["--seed_network=mlp", "--cost="], "no cost ''; known are 'flops', 'size'"),
        (["--seed_network=mlp", "--cost=-1*flops"], "'-1' in '-1*flops' is not a weight"),
        (["--seed_network=mlp", "extra"], "unexpected arguments: extra"),
        (["--modell=a:b"], "Did you mean: model"),
    ],
)
def test_nonsense_ends_in_one_line(capsys, arguments, message):
    assert message in failure(capsys, *arguments)


def test_an_error_names_the_users_line_and_verbosity_shows_the_traceback(capsys):
    line = next(n for n, text in enumerate(MODELS.splitlines(), 1) if "x.sum() > 0" in text)
    command = ["--model=own_models:Branches", "--input=2,5"]
    assert f"own_models.py:{line}]" in failure(capsys, *command)
    with pytest.raises(SystemExit):
        launch(*command, "--verbosity=1")
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "TracerBoolConversionError" in error


def test_help_tells_everything(capsys):
    launch("--help")
    assert "halved_parameters" in capsys.readouterr().out


def test_values_of_one_call_do_not_reach_the_next(capsys):
    document(capsys, "--model=own_models:pair", "--input=2,5")
    assert "found neither" in failure(capsys)


def test_the_command(models):
    command = [sys.executable, "-m", "experiments.inspect", "--model=own_models:NNX", "--input=2,5"]
    result = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        cwd=models,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
        check=True,
    )
    assert [group["name"] for group in json.loads(result.stdout)["groups"]] == ["inner"]
    assert result.stderr == ""
