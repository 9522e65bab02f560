"""The tables of `experiments.inspect`."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import regularizers as reg
from experiments import inspect
from experiments.inspect_tables import show
from experiments.inspected import make_report, to_json, totals_of


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


def test_the_tables(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch("--seed_network=resnet8", "--picture=map.svg")
    text = capsys.readouterr().out
    for word in (
        "Channel groups",
        "Layers",
        "Fixed as it should be",
        "conv 3×3",
        "3 → 16",
        "axis of an",
    ):
        assert word in text
    assert "9 without a product" in text
    assert "114 equations" in text
    assert "Drawn: map.svg" in text
    assert (tmp_path / "map.svg").read_text().startswith("<?xml")


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
    document = to_json(report)
    assert document["unknown"][0]["primitive"] == "odd"
    assert document["layers"][-1] | {"layer": "odd", "flops": 0.0} == document["layers"][-1]
    totals = totals_of(report)
    assert totals["flops"] == 2 * 2 * (5 * 7 + 7 * 4 + 4 * 3)
    assert totals["free_flops"] == pytest.approx(1 - 35 / 75)
    assert totals["halved_flops"] == pytest.approx(1 - 20 / 75)
