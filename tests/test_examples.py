"""A loop of one's own, as the examples have it: few lines more than the plain one, and it lands."""

import ast
import runpy
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
OURS = ("morph", "reg", "budget", "graph", "regularizer")


@pytest.mark.promotes  # optax and Flax
@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_a_loop_of_ones_own_lands_on_its_budget(name, capsys):
    """The program asserts a share of 49 to 50 %, and the function that was trained."""
    with jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(ROOT / f"examples/{name}_model.py"), run_name="__main__")
    assert "% of the FLOPs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_the_lines_that_are_marked_are_all_that_it_takes(name):
    text = (ROOT / f"examples/{name}_model.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# morph")}
    assert len(marked) <= 12
    shown = next(number for number, line in enumerate(lines, 1) if "print(arch)" in line)
    tree = ast.parse(text)
    used = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.alias)
        and (node.id if isinstance(node, ast.Name) else node.asname or node.name) in OURS
    }
    assert {number for number in used if number < shown} <= marked
    plain = [line for number, line in enumerate(lines, 1) if number not in marked]
    ast.parse("\n".join(plain))
