"""Foreign models and functions of one line, exported by us and by jax2onnx, run beside JAX.

    PYTHONPATH=.:tests python tests/zoo/beside.py --package=jimmy,jaxnn --out=results/beside.json

in an environment that has tests/zoo/requirements.txt and `jax2onnx`. Both get the same function,
its weights inside, and inputs whose batch may vary; where that is refused, the batch they have.
A file is right if ONNX Runtime gives what JAX does, to 1e-4 of the largest number: `any` at a
second batch size as well, `fixed` at one. The functions of one line (package `lines`) are those in
our own tests of ONNX's rules, which favours us.
"""

import argparse
import fnmatch
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exported
import jax
import jax2onnx
import numpy as np
import onnxruntime
import run
from corpus.soundness import fill
from models import Specimen

from morph.errors import ExportError
from morph.export import onnx

LINES = "lines"
RULES = ("elementwise", "indexing", "products", "reductions", "shapes", "control")
COLUMNS = "{:36} {:18} {:18} {}"


def main() -> int:
    arguments = run.parse(__doc__)
    if arguments.worker:
        if arguments.worker == LINES:
            lines(arguments)
        else:
            run.work(arguments, measure)
        return 0
    run.SECONDS = exported.SECONDS
    chosen = (
        arguments.package.split(",") if arguments.package else [LINES, *run.packages(arguments)]
    )
    rows: list[dict[str, Any]] = []
    for package in chosen:
        for row in run.rows_of(package, arguments, __file__):
            rows.append(row)
            show(row)
            if arguments.out:
                run.write(arguments.out, rows, summary(rows), "tests/zoo/beside.py")
    print(json.dumps(summary(rows), indent=1))
    return 0


def lines(options: argparse.Namespace) -> None:
    """The functions of one line in the tests of ONNX's rules, but for the first ones."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "morph/export/onnx_rules"))
    x = np.random.default_rng(1).uniform(0.1, 0.9, (3, 5, 3)).astype(np.float32)
    found = []
    for rules in RULES:
        module = importlib.import_module(f"test_{rules}")
        tables = [t for n, t in vars(module).items() if isinstance(t, dict) and n.isupper()]
        found += [(f"{rules}: {n}", fn) for t in tables for n, fn in t.items() if takes(fn, x)]
    found = [own for own in found if fnmatch.fnmatch(own[0], options.only)]
    for name, fn in found[options.skip :]:
        run.say({"start": name})
        row = {"package": LINES, "model": name}
        run.say({"row": row | both(lambda _, x, fn=fn: fn(x), {"unused": x}, (x,))})
    run.say({"start": "end"})


def takes(fn: Callable[..., Any], x: np.ndarray) -> bool:
    """Whether it is a function of that array alone."""
    try:
        return bool(jax.tree.leaves(jax.eval_shape(fn, x)))
    except Exception:
        return False


def measure(specimen: Specimen, options: argparse.Namespace) -> dict[str, Any]:
    """What became of one model."""
    variables = run.positive(fill(specimen.variables, np.random.default_rng(0)))
    return both(
        lambda variables, *inputs: specimen.fn(variables, *inputs, **specimen.static),
        variables,
        specimen.inputs,
    )


def both(fn: Callable[..., Any], variables: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """By exporter: `any` or `fixed` where the file is right, else what is wrong; and seconds."""
    flat = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    tree = jax.tree.structure(inputs)

    def call(*leaves: Any) -> Any:
        return jax.tree.leaves(fn(variables, *jax.tree.unflatten(tree, leaves)))

    sizes = [flat]
    try:
        sizes.append(exported.more(flat))
        wanted = [jax.jit(call)(*own) for own in sizes]
    except Exception:  # a model of its own batch only
        sizes = sizes[:1]
        wanted = [jax.jit(call)(*flat)]
    found: dict[str, Any] = {}
    for name, write in (("morph", ours), ("jax2onnx", theirs)):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = judged(write, call, flat, Path(folder) / "network.onnx", sizes, wanted)
        found[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
    return found


def judged(
    write: Any, call: Any, flat: list[Any], path: Path, sizes: list[Any], wanted: list[Any]
) -> dict[str, Any]:
    """What became of a file, with the error or the difference."""
    told = ""
    for opened in (True, False):
        try:
            write(call, flat, path, opened)
        except Exception as error:
            kind = "refused" if isinstance(error, ExportError | NotImplementedError) else "crashed"
            told = told or f"{type(error).__name__}: {str(error)[:200]}"
            outcome = {"outcome": kind, "why": told}
            continue
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            outcome = {"outcome": "does not load", "why": str(error)[:200]}
            continue
        off = []
        for inputs, expected in zip(sizes, wanted, strict=True):
            try:
                feeds = {x.name: a for x, a in zip(session.get_inputs(), inputs, strict=True)}
                off.append(exported.difference(expected, session.run(None, feeds)))
            except Exception as error:
                off.append(str(error)[:200])
        good = [isinstance(own, float) and own <= exported.ROOM for own in off]
        if good[0]:
            return {"outcome": "any" if all(good) and len(good) > 1 else "fixed", "off": off}
        outcome = {"outcome": "wrong" if isinstance(off[0], float) else "does not run", "off": off}
    return outcome


def ours(call: Any, flat: list[Any], path: Path, opened: bool) -> None:
    """One of the two: it leaves the batch open where it can."""
    if not opened:
        raise ExportError("tried")
    onnx.to_onnx(lambda _, x: call(*x), {"unused": flat[0]}, flat, path)


def theirs(call: Any, flat: list[Any], path: Path, opened: bool) -> None:
    """The other, with a batch of any size, or that of the inputs."""
    inputs = [
        jax.ShapeDtypeStruct(("B", *x.shape[1:]) if opened and x.ndim else x.shape, x.dtype)
        for x in flat
    ]
    jax2onnx.to_onnx(call, inputs, return_mode="file", output_path=str(path))


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    name = f"{row['package']}/{row['model']}"
    if "error" in row:
        print(name, row["error"][:200], flush=True)
        return
    cells = [row[own]["outcome"] for own in ("morph", "jax2onnx")]
    print(COLUMNS.format(name, *cells, row["jax2onnx"].get("why", "")[:120]), flush=True)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By kind and exporter, how many came to what."""
    kinds = {LINES: [r for r in rows if r["package"] == LINES], "models": []}
    kinds["models"] = [row for row in rows if row["package"] != LINES]
    return {
        kind: {
            name: dict(Counter(row.get(name, {"outcome": "failed"})["outcome"] for row in own))
            for name in ("morph", "jax2onnx")
        }
        for kind, own in kinds.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
