"""Exports every foreign model of the zoo, dense and shrunk by half, and runs the files beside JAX.

Called by `make zoo-exports`; by hand, in an environment that has tests/zoo/requirements.txt:

    PYTHONPATH=.:tests python tests/zoo/exported.py --package=flaim --only='swin*'

To ONNX and to StableHLO. A file counts as right if it differs from JAX by at most 1e-4 of the
largest number, at two batch sizes (at one, where the model takes only the examples that it was
given: a graph, or batch statistics; the row says so). Every other model must be refused by an
`ExportError`. Models run in a process of their own package, by the machinery of `run.py`. The
exit status is 1 if a file is wrong, or fewer than 90 % go to ONNX or not all to StableHLO.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import run
from corpus.soundness import fill
from models import Specimen

import morph
import regularizers as reg
from morph.errors import ExportError
from morph.export import onnx, stablehlo
from morph.export.exported import INDEPENDENT

SECONDS = 900  # for one model
ROOM = 1e-4  # of the largest number
TARGETS: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "onnx": (onnx.to_onnx, onnx.load),
    "stablehlo": (partial(stablehlo.to_stablehlo, platforms=("cpu",)), stablehlo.load),
}
COLUMNS = "{:34} {:>7}  {:28} {:28}  {}"


def main() -> int:
    arguments = run.parse(__doc__)
    if arguments.worker:
        run.work(arguments, measure)
        return 0
    print(COLUMNS.format("model", "seconds", "onnx", "stablehlo", "refused"), flush=True)
    run.SECONDS = SECONDS
    rows: list[dict[str, Any]] = []
    totals: dict[str, Any] = {}
    for package in run.packages(arguments):
        for row in run.rows_of(package, arguments, __file__):
            show(row)
            rows.append(row)
            totals = summary(rows)
            if arguments.out:  # after every model: a run may be cut short
                run.write(arguments.out, rows, totals, "tests/zoo/exported.py")
    print(json.dumps(totals, indent=1))
    return int(not totals["holds"])


def measure(specimen: Specimen, options: argparse.Namespace) -> dict[str, Any]:
    """What became of one model: by network and target, the batch and the largest difference."""
    started = time.perf_counter()
    variables = run.positive(fill(specimen.variables, np.random.default_rng(0)))
    graph = reg.trace_channels(specimen.fn, variables, *specimen.inputs, **specimen.static)
    halves = {name: np.arange(width) % 2 == 0 for name, width in graph.widths.items()}
    halved = morph.shrink(graph, halves, inexact=True)
    small = morph.compact(specimen.fn, halved)
    networks = {"dense": (specimen.fn, variables), "half": (small, halved.take(variables))}
    found = {}
    alone = len(specimen.inputs) == 1
    inputs = specimen.inputs[0] if alone else specimen.inputs
    for name, (fn, own) in networks.items():

        def call(variables: Any, x: Any, fn: Any = fn) -> Any:
            return fn(variables, *((x,) if alone else x), **specimen.static)

        wanted: dict[int, Any] = {}
        for target in TARGETS:
            found[f"{name}/{target}"] = outcome(call, own, inputs, target, wanted)
    return {"seconds": round(time.perf_counter() - started, 1), **found}


def outcome(
    call: Any, variables: Any, inputs: Any, target: str, wanted: dict[int, Any]
) -> dict[str, Any]:
    """A file's batch and how far it is off, or why it was refused; keeps what JAX gives."""
    write, load = TARGETS[target]
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = write(call, variables, inputs, Path(folder) / "network")
        except ExportError as error:
            return {"refused": str(error)[:300]}
        except Exception as error:
            return {"crashed": f"{type(error).__name__}: {str(error)[:300]}"}
        network = load(written.path)
        counts = {2: inputs}
        if written.batch is None or written.examples == INDEPENDENT:
            counts[3] = more(inputs)
        for n in counts.keys() - wanted.keys():
            with jax.default_matmul_precision("highest"):
                wanted[n] = jax.jit(call)(variables, counts[n])
        off = {n: difference(wanted[n], network(x)) for n, x in counts.items()}
    return {
        "batch": "any" if written.batch is None else f"{written.batch}, {written.examples}",
        "sizes": len(off),
        "off": max(off.values()),
        "note": written.note[:200],
    }


def more(inputs: Any) -> Any:
    """One example more: the first, a little smaller."""
    return jax.tree.map(
        lambda x: np.concatenate([x, (x[:1] * 0.9).astype(x.dtype)]) if np.ndim(x) else x, inputs
    )


def difference(wanted: Any, found: Any) -> float:
    """The largest |difference|, by the largest number of each output."""
    worst = 0.0
    for one, other in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        one, other = (np.asarray(own).astype(np.float64) for own in (one, other))
        scale = np.max(np.abs(one), where=np.isfinite(one), initial=1e-30)
        with np.errstate(invalid="ignore"):
            apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0, one - other)
        worst = max(worst, float(np.max(np.abs(apart), initial=0.0) / scale))
    return worst


def outcomes(row: dict[str, Any], target: str) -> list[dict[str, Any]]:
    return [row[key] for key in ("dense/" + target, "half/" + target) if key in row]


def right(row: dict[str, Any], target: str) -> bool:
    """Whether both networks of a model are exported, and right."""
    found = outcomes(row, target)
    return len(found) == 2 and all(own.get("off", np.inf) <= ROOM for own in found)


def wrong(row: dict[str, Any]) -> bool:
    """Whether a file was written that is something else, or a model crashed."""
    every = [own for target in TARGETS for own in outcomes(row, target)]
    return "error" in row or any("crashed" in x or not x.get("off", 0.0) <= ROOM for x in every)


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    cells = []
    for target in TARGETS:
        own = outcomes(row, target)
        cells.append(" ".join(f"{x['off']:.0e}/{x['sizes']}" if "off" in x else "-" for x in own))
    told = [own.get("refused", own.get("crashed", "")) for t in TARGETS for own in outcomes(row, t)]
    told = [row.get("error", ""), *dict.fromkeys(told)]
    name = f"{row['package']}/{row['model']}"
    print(COLUMNS.format(name, row.get("seconds", ""), *cells, " ".join(told)[:400]), flush=True)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over all models."""
    counts = {target: sum(right(row, target) for row in rows) for target in TARGETS}
    bad = [f"{row['package']}/{row['model']}" for row in rows if wrong(row)]
    every = [own for row in rows for target in TARGETS for own in outcomes(row, target)]
    return {
        "models": len(rows),
        **{f"{target}, dense and half": n for target, n in counts.items()},
        "wrong": bad,
        "batch": Counter(own["batch"] for own in every if "batch" in own),
        "at_two_sizes": sum(own.get("sizes") == 2 for own in every),
        "largest_difference": max((own["off"] for own in every if "off" in own), default=None),
        "holds": not bad and counts["onnx"] >= 0.9 * len(rows) and counts["stablehlo"] == len(rows),
    }


if __name__ == "__main__":
    raise SystemExit(main())
