import io
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import regularizers as reg
from experiments import inspect
from experiments.inspect_tables import show
from experiments.inspected import make_report, to_json, totals_of

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


def table_rows(text, title):
    """The cells of a printed table; a row that is folded counts as several."""
    lines = text.split(f"\n{title}", 1)[1].split("└", 1)[0].splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


@pytest.mark.parametrize("costs", ["flops,size", "edge_tpu,V100,activation_bytes", "energy"])
def test_shares_in_the_table_add_up(capsys, costs):
    launch("--seed_network=resnet8", "--input=1,8,8,3", f"--cost={costs}")
    text = capsys.readouterr().out
    rows = table_rows(text, "Layers")
    for k in range(len(costs.split(","))):
        shares = [row[4 + 2 * k] for row in rows]
        assert sum(float(share[:-1]) for share in shares if share) == pytest.approx(100, abs=1)
    for name in costs.split(","):
        if name not in ("flops", "size"):
            assert f"\n{name}: " in text
            assert "with every group halved." in text.split(f"\n{name}: ")[1].splitlines()[0]


def test_what_is_no_layer_has_a_row_of_its_own(capsys):
    launch("--seed_network=resnet8", "--input=1,8,8,3", "--cost=edge_tpu,activation_peak")
    rows = {row[0]: row[3:] for row in table_rows(capsys.readouterr().out, "Layers")}
    start, inputs = rows["(start, input, output)"], rows["(inputs)"]
    assert start[0].endswith("µs")
    assert start[2:] == ["0 B", "0.0%"]
    assert inputs[:3] == ["0 s", "0.0%", "768 B"]
    assert any("without a product: " in name for name in rows)


def test_the_tables(capsys, models):
    launch("--seed_network=resnet8", "--picture=map.svg")
    text = capsys.readouterr().out
    for word in ("Channel groups", "Layers", "Fixed widths", "conv 3×3", "3 → 16", "axis of an"):
        assert word in text
    assert "9 without a product" in text
    assert "114 equations" in text
    assert "Drawn: map.svg" in text
    assert (models / "map.svg").read_text().startswith("<?xml")


@pytest.mark.filterwarnings("ignore:odd has no price")
def test_an_unknown_operation_and_an_inexact_group_are_told():
    odd = jax.extend.core.Primitive("odd")
    odd.def_abstract_eval(lambda x: x)

    def fn(variables, x):
        return nn.sigmoid(odd.bind(x @ variables["a"]) @ variables["b"]) @ variables["c"]

    variables = {"a": jnp.ones((5, 7)), "b": jnp.ones((7, 4)), "c": jnp.ones((4, 3))}
    graph = reg.trace_channels(fn, variables, jnp.ones((2, 5)))
    report = make_report("net", [], graph, 0.0)
    text = io.StringIO()
    show(report, Console(width=160, file=text))
    assert "no rule for odd: all that it touches is fixed" in text.getvalue()
    assert "no: " in text.getvalue()
    assert to_json(report)["unknown"][0]["primitive"] == "odd"
    totals = totals_of(report)
    assert totals["flops"] == 2 * 2 * (5 * 7 + 7 * 4 + 4 * 3)
    assert totals["free_flops"] == pytest.approx(1 - 35 / 75)
    assert totals["halved_flops"] == pytest.approx(1 - 20 / 75)
