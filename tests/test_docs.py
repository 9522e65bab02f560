"""The pages in `docs/`: their code runs as it stands, and no reason of the engine is left out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
PAGES = (
    "inference", "pinned", "custom_primitives", "costs", "edge_tpu", "calibrate", "training",
    "tensorize", "pruning", "quantization", "export",
)  # fmt: skip
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]+))?\)")

# Functions of the engine that take a reason, and names that hold one.
TAKE = {
    "Pin", "along", "batched", "fixed", "fixed_axes", "give_up", "pin", "pinning", "reduce_pinning",
}  # fmt: skip
HOLD = {"reason", "reasons", "why"}


def read(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def reasons_in(tree: ast.AST) -> Iterator[str]:
    """The fixed pieces of all reasons that a module of the engine gives."""
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = node.args[name == "along" :] if name in TAKE else []  # first along what
            given = given + [k.value for k in node.keywords if k.arg == "reason"]
        elif isinstance(node, ast.Assign):
            names = {getattr(getattr(t, "value", t), "id", "") for t in node.targets}
            given = [node.value] if names & HOLD else []
        elif isinstance(node, ast.FunctionDef) and node.name == "not_zero":
            given = [n.value for n in node.body if isinstance(n, ast.Return) and n.value]
        for value in given:
            if isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp):
                for piece in ast.walk(value):
                    if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
                        yield piece.value.strip(" ,:[]")


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page):
    path, text = ROOT / "docs" / f"{page}.md", read(page)
    blocks = list(BLOCK.finditer(text))
    assert blocks
    namespace = {"__name__": page}
    with jax.numpy_rank_promotion("allow"):  # as it is by default
        for block in blocks:
            above = text.count("\n", 0, block.start(1))  # errors and pins name the line of the page
            exec(compile("\n" * above + block[1], str(path), "exec"), namespace)


def test_every_reason_is_explained():
    sources = [*(ROOT / "regularizers/channels").rglob("*.py"), ROOT / "morph/resize/sizes.py"]
    sources.append(ROOT / "morph/resize/compact.py")
    found = {piece for path in sources for piece in reasons_in(ast.parse(path.read_text("utf-8")))}
    found = {piece for piece in found if len(piece) > 4}  # the rest are joints and formats
    assert {"axis of an output", "sorted along it", "cannot align", "touched by"} <= found
    page = read("pinned")
    assert sorted(piece for piece in found if piece not in page) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, section in LINK.findall(read(page)):
        if "://" in target:
            continue
        path = ROOT / "docs" / (target or f"{page}.md")
        assert path.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert section in slugs, section
