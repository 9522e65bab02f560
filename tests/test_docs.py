"""The pages in `docs/`: their code runs as it stands, and no reason of the engine is left out."""

import ast
import functools
import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from experiments.commands import COMMANDS, UNLISTED, declared
from experiments.console.flags import read_flags
from morph.cycle.workdir import save_variables

ROOT = Path(__file__).parent.parent
PAGES = (
    "inference", "pinned", "custom_primitives", "costs", "edge_tpu", "calibrate", "training",
    "tensorize", "pruning", "quantization", "container", "export", "patterns", "own_loop",
    "other_libraries", "data", "trained", "from_morphnet", "from_torch_pruning",
    "real_networks",
)  # fmt: skip
IMPORT = re.compile(r"^[ \"]*(?:from|import) ((?:morph|regularizers)[\w.]*)", re.MULTILINE)
DOORS = {
    "morph",
    "regularizers",
    "morph.compress",
    "morph.export",
    "morph.tensorize",
    "morph.training",
}
TOLD = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/notebooks").glob("*.ipynb")),
    *(ROOT / "examples").glob("*.py"),
]
# Pages of those who write a rule or a cost of their own: the engine's inside.
DEEPER = {
    "custom_primitives.md": {"regularizers.primitives.terms"},
    "edge_tpu.md": {
        "regularizers.costs.edge_tpu_operations",
        "regularizers.costs.edge_tpu_table",
    },
}
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
PAGES_OF_ALL = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = re.compile(
    r"^```sh\n(.*?)^```$|`((?:morph|python -m experiments)[^`]*)`", re.DOTALL | re.MULTILINE
)
DEFAULT = re.compile(r"`--(\w+)` \((?:default )?([^\s)]+)\)|`--(\w+)=([^`]+)`(?: is|,) the default")
COMMAND = re.compile(r"(?:morph |bin/(?=demo)|python -m experiments\.)(\w+)(?: (.*))?$")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]+))?\)")

# Functions of the engine that take a reason, and names that hold one.
TAKE = {
    "Pin", "along", "batched", "fixed", "fixed_axes", "give_up", "pin", "pinning", "reduce_pinning",
}  # fmt: skip
HOLD = {"reason", "reasons", "why"}


def read(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def blocks(path: Path) -> Iterator[CodeType]:
    """The code of a page; errors and pins name its lines."""
    text = path.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert found
    for block in found:
        yield compile("\n" * text.count("\n", 0, block.start(1)) + block[1], str(path), "exec")


@pytest.fixture(autouse=True)
def as_a_reader(tmp_path, monkeypatch):
    """In a folder of one's own, with rank promotion as it is by default."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        yield


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


NEEDS = {"other_libraries": ("equinox", "haiku")}  # the extra `test` brings them


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    namespace = {"__name__": page}
    for code in blocks(ROOT / "docs" / f"{page}.md"):
        exec(code, namespace)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_have_what_they_print(path):
    pytest.importorskip("sklearn")  # the extra `test` brings it
    notebooks = runpy.run_path(str(ROOT / "docs/notebooks.py"))
    told = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebooks["run"](path)["cells"] if cell["cell_type"] == "code"]
    stored = [cell for cell in told["cells"] if cell["cell_type"] == "code"]
    printed = [bool(cell["outputs"]) for cell in cells]
    assert printed == [bool(cell["outputs"]) for cell in stored]
    assert "% of the FLOPs" in notebooks["markdown"](told)


class Net(nn.Module):
    """What a reader may have."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(4)(nn.relu(nn.Dense(8)(x)))


@functools.partial(jax.jit, static_argnums=0)
def step(tx, variables, state):
    """One step of a reader's own loop."""
    x = jax.random.normal(jax.random.key(1), (8, 16))
    slopes = jax.grad(lambda variables: (Net().apply(variables, x) ** 2).mean())(variables)
    updates, state = tx.update(slopes, state, variables)
    return optax.apply_updates(variables, updates), state


def test_code_of_the_readme_runs():
    """One block after the other, in the folder of a run, with a reader's own network at hand."""
    model, x, key = Net(), np.ones((128, 16), np.float32), jax.random.key(0)
    variables = model.init(key, x)
    graph = reg.trace_channels(model.apply, variables, x)
    morph.Architecture.of_seed(graph).save("architecture.json")
    save_variables(Path("runs/digits-resnet8/variables"), variables)
    batches = [(x, np.arange(128) % 4)]

    def loss(variables, batch):
        chances = jax.nn.log_softmax(model.apply(variables, batch[0]))
        return -chances[np.arange(128), batch[1]].mean()

    namespace = {"model": model, "variables": variables, "x": x, "key": key}
    namespace |= {"loss": loss, "batches": batches, "step": step}
    for block in blocks(ROOT / "README.md"):
        exec(block, namespace)
    assert namespace["logits"].shape == (128, 4)


def test_the_demo_is_the_run_that_is_told():
    told = json.loads((ROOT / "results/digits-resnet8.json").read_text(encoding="utf-8"))
    flags = told["command"].removeprefix("python -m experiments.run ")
    assert f"set -- {flags}\n" in (ROOT / "bin/demo").read_text(encoding="utf-8")
    assert f"bin/demo {flags}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_begins_with_what_is_true():
    """In place of badges, which a server elsewhere would have to draw."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [line.rpartition(" :: ")[2] for line in project["classifiers"]]
    pythons = sorted(
        (line for line in found if line.startswith("3.")), key=lambda one: int(one[2:])
    )
    top = (ROOT / "README.md").read_text(encoding="utf-8")[:400]
    assert f"Python {pythons[0]} to {pythons[-1]}" in top
    assert "jax>=0.10,<0.13" in project["dependencies"]
    assert "JAX 0.10 to 0.12" in top
    assert f"[{project['license']}](LICENSE)" in top
    assert f"version {morph.__version__}" in top


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).split()) < 1000


def test_every_reason_is_explained():
    rooms = (ROOT / "regularizers/channels", ROOT / "regularizers/primitives")
    sources = [path for room in rooms for path in room.rglob("*.py")]
    sources += [ROOT / "morph/resize/sizes.py", ROOT / "morph/resize/compact.py"]
    found = {piece for path in sources for piece in reasons_in(ast.parse(path.read_text("utf-8")))}
    found = {piece for piece in found if len(piece) > 4}  # the rest are joints and formats
    assert {"axis of an output", "sorted along it", "cannot align", "touched by"} <= found
    page = read("pinned")
    assert sorted(piece for piece in found if piece not in page) == []


def commands_of(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that a page gives, with the words behind each."""
    for block, inline in SHELL.findall(page.read_text(encoding="utf-8")):
        for line in (block or " ".join(inline.split())).replace("\\\n", " ").splitlines():
            if told := COMMAND.match(line):
                name = told[1].replace("demo", "run")
                yield name, shlex.split(told[2] or "", comments=True)


def test_commands_have_the_flags_that_pages_give_them(monkeypatch):
    monkeypatch.chdir(ROOT)  # where files of flags are found
    pages = [page for page in TOLD if page.suffix == ".md"]
    found = [(page.name, *one) for page in pages for one in commands_of(page)]
    assert len(found) > 40
    for page, name, words in found:
        assert name in (*COMMANDS, *UNLISTED), (page, name)
        read_flags(declared(name).define(), [page, *words])


def test_defaults_of_flags_are_as_pages_say():
    """As in "`--checkpoint_seconds` (60)" and "`--penalty=decay` is the default"."""
    found = [one for page in PAGES_OF_ALL for one in DEFAULT.findall(page.read_text("utf-8"))]
    told = {(name or other, value or text) for name, value, other, text in found}
    assert {"checkpoint_seconds", "penalty"} <= {name for name, _ in told}
    every = {name: declared(name).define() for name in ("run", *COMMANDS, *UNLISTED)}
    for name, value in told:  # of `run`, where it has the flag
        flag = next(flags[name] for flags in every.values() if name in flags)
        assert flag.default == flag.parser.parse(value), name


@pytest.mark.parametrize("page", PAGES_OF_ALL, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, section in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert section in slugs, section


def test_links_out_of_the_site_become_names():
    hook = runpy.run_path(str(ROOT / "docs/outside_links.py"))["on_page_markdown"]
    page = SimpleNamespace(file=SimpleNamespace(src_uri="notebooks/own.md"))
    text = "[one](../data.md), [two](../../examples/two.py), [`a.py`](../../bin/a.py)"
    assert hook(text, page=page) == "[one](../data.md), two (`examples/two.py`), `bin/a.py`"


def test_addresses_outside_are_listed():
    """Whoever adds one looks at it: `python docs/addresses.py > docs/addresses.txt`."""
    found = runpy.run_path(str(ROOT / "docs/addresses.py"))["addresses"]()
    listed = (ROOT / "docs/addresses.txt").read_text(encoding="utf-8").split()
    assert sorted({address for address, _ in found}) == listed


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_nothing_deeper_than_a_surface_is_imported(path):
    found = set(IMPORT.findall(path.read_text(encoding="utf-8")))
    assert found <= DOORS | DEEPER.get(path.name, set())
