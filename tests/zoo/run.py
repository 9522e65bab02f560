"""Resizes every foreign model of the zoo and proves the small function equal to the masked one.

Called by `make zoo`; by hand, in an environment that has tests/zoo/requirements.txt:

    PYTHONPATH=.:tests python tests/zoo/run.py --package=flaim --only='swin*'

Half of every exact group's channels, drawn at random, are removed. A table shows for each model

    eqs     equations of its jaxpr, those of called functions included
    trace   seconds to trace it and to infer its channels
    groups  channel groups, and how many of them are exact
    left    share of the parameters left, when exact and when all groups are halved
            (25 % is the ideal: half of the rows and half of the columns of every kernel)
    values, grads  the largest difference, relative to the largest number
    unknown primitives without a rule

Models run in a process of their own package, so a crash or a hang costs one row. A model that
differs by more than 1e-5 is measured again in float64, which tells rounding from a real difference.
The exit status is 1 if a model could not be resized or differs there, too.
"""

import argparse
import datetime
import fnmatch
import glob
import importlib
import importlib.metadata
import json
import math
import os
import platform
import queue
import re
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import compat
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from corpus.soundness import compare, fill
from models import Specimen

import morph
import regularizers as reg
from regularizers.channels.calls import flat_paths

HERE = Path(__file__).parent
TOLERANCE = 1e-5  # relative
SECONDS = 240  # for one model
# Each program runs once, so time spent on making it fast is lost.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
WIDE = {"JAX_ENABLE_X64": "1"}
VARIANCE = re.compile(r"(?:^|/)(?:running_|moving_)?var(?:iance)?(?:/|$)")
COLUMNS = "{:34} {:>6} {:>6} {:>9} {:>11} {:>8} {:>8}  {}"


def main() -> int:
    arguments = parse(__doc__)
    if arguments.worker:
        work(arguments, measure)
        return 0
    started = time.perf_counter()
    print(
        COLUMNS.format("model", "eqs", "trace", "groups", "left", "values", "grads", "unknown"),
        flush=True,
    )
    rows: list[dict[str, Any]] = []
    for package in packages(arguments):
        for row in rows_of(package, arguments, __file__):
            rows.append(sure(row, arguments))
            show(rows[-1])
        totals = summary(rows) | {"minutes": round((time.perf_counter() - started) / 60, 1)}
        if arguments.out:
            write(
                arguments.out, rows, totals, "tests/zoo/run.py"
            )  # after every package: a run may be cut short
    if not rows:
        raise SystemExit(f"no model matches {arguments.only!r}")
    print(json.dumps(totals, indent=1))
    return int(totals["passed"] < totals["models"])


def packages(arguments: argparse.Namespace) -> list[str]:
    """Those that are asked for."""
    known = sorted(p.stem.removeprefix("zoo_") for p in (HERE / "packages").glob("zoo_*.py"))
    chosen = arguments.package.split(",") if arguments.package else known
    if missing := set(chosen) - set(known):
        raise SystemExit(f"no package {sorted(missing)}; there are {known}")
    return chosen


def parse(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    parser.add_argument("--package", default="", help="only these packages, with commas between")
    parser.add_argument("--only", default="*", help="only models whose name matches this pattern")
    parser.add_argument("--quick", action="store_true", help="only infer, compare nothing")
    parser.add_argument("--values", action="store_true", help="do not compare gradients")
    parser.add_argument("--out", type=Path, help="write the rows and totals to this JSON file")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def rows_of(package: str, arguments: argparse.Namespace, script: str) -> Iterator[dict[str, Any]]:
    """All rows of a package. A worker that crashes or hangs is followed by another."""
    count, current = 0, "?"
    while current != "end":
        current = "?"
        command = [*command_of(package, arguments, script), f"--skip={count}"]
        for line in lines_of(command, {}):
            current = line.get("start", current)
            if "row" in line:
                count += 1
                yield line["row"]
        if current != "end":
            count += 1
            yield {"package": package, "model": current, "error": "crashed or timed out"}
        if current == "?":  # not even an import succeeded
            break


def command_of(
    package: str, arguments: argparse.Namespace, script: str = __file__, only: str = ""
) -> list[str]:
    """What measures a package's models, or only one."""
    chosen = glob.escape(only) or arguments.only
    command = [sys.executable, script, f"--worker={package}", f"--only={chosen}"]
    return command + ["--quick"] * arguments.quick + ["--values"] * arguments.values


def sure(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """A row; of a model that differs in float32 that of float64, where rounding is none."""
    if "error" in row or difference(row) <= TOLERANCE:
        return row
    command = command_of(row["package"], arguments, only=row["model"])
    wider = [line["row"] for line in lines_of(command, WIDE) if "row" in line]
    if not wider or "error" in wider[0]:
        return row
    told = f"in float32 it differs by {difference(row):.0e}: measured again in float64"
    return wider[0] | {"note": told}


def lines_of(command: list[str], environment: dict[str, str]) -> Any:
    """What a worker says, until it ends or is silent for too long."""
    worker = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | os.environ | environment,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []

    def read() -> None:
        for line in worker.stdout or ():
            lines.put(line)
        lines.put(None)

    readers = [
        threading.Thread(target=read, daemon=True),
        threading.Thread(target=lambda: errors.extend(worker.stderr or ()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        while (line := lines.get(timeout=SECONDS)) is not None:
            if line.startswith('{"zoo"'):
                yield json.loads(line)["zoo"]
    except queue.Empty:
        pass
    finally:
        worker.kill()
        if worker.wait() > 0:
            print("".join(errors[-5:]), file=sys.stderr)


def work(arguments: argparse.Namespace, measure: Callable[..., dict[str, Any]]) -> None:
    """Measures the models of a package and says so line by line."""
    package = arguments.worker
    compat.prepare(package)
    models = importlib.import_module(f"packages.zoo_{package}").MODELS
    compat.hide()
    names = [name for name in models if fnmatch.fnmatch(name, arguments.only)]
    for name in names[arguments.skip :]:
        say({"start": name})
        row = {"package": package, "model": name}
        try:
            row |= measure(models[name](), arguments)
        except Exception as error:  # one row, not the end
            text = str(error).strip() or traceback.format_exc(limit=-1).strip()
            row |= {"error": f"{type(error).__name__}: {text[:600]}"}
        jax.clear_caches()
        say({"row": row})
    say({"start": "end"})


def say(message: Any) -> None:
    print(json.dumps({"zoo": message}), flush=True)


def measure(specimen: Specimen, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one model."""
    variables = positive(fill(specimen.variables, np.random.default_rng(0)))
    arguments = (specimen.fn, *widest((variables, *specimen.inputs)))
    started = time.perf_counter()
    graph = reg.trace_channels(*arguments, **specimen.static)
    seconds = time.perf_counter() - started
    halves = {name: np.arange(width) % 2 == 0 for name, width in graph.widths.items()}
    halved, all_halved = (morph.shrink(graph, halves, inexact=flag) for flag in (False, True))
    seed = sum(halved.parameters(halved.seed_widths).values())
    row = {
        "equations": equations(*arguments, **specimen.static),
        "seconds": round(seconds, 3),
        "groups": len(graph.groups),
        "exact": sum(group.exact for group in graph.groups.values()),
        "parameters": seed,
        "left": round(sum(halved.parameters().values()) / seed, 4),
        "left_with_inexact": round(sum(all_halved.parameters().values()) / seed, 4),
        "values": None,
        "gradients": None,
        "unknown": dict(graph.unknown),
        "fixed": fixed(graph),
        "inexact": Counter(g.why_inexact for g in graph.groups.values() if not g.exact),
    }
    if not options.quick:
        with_gradients = specimen.gradients and not options.values
        try:
            found = compare(*arguments, gradients=with_gradients, **specimen.static)
        except ValueError as error:  # the norm of a channel that is zero has no gradient
            if "gradient" not in str(error) or "not finite" not in str(error):
                raise
            row["note"] = str(error)
            found = compare(*arguments, gradients=False, **specimen.static)
        row["values"] = found.values
        row["gradients"] = None if math.isnan(found.gradients) else found.gradients
    return row


def widest(tree: Any) -> Any:
    """Floats in float64 where JAX_ENABLE_X64 is set: to tell rounding from a real difference."""

    def widen(leaf: Any) -> Any:
        is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if is_float else leaf

    return jax.tree.map(widen, tree) if jax.config.jax_enable_x64 else tree


def positive(variables: Any) -> Any:
    """`variables` with running variances above zero, whatever their name."""
    paths, leaves, tree = flat_paths(variables)
    leaves = [
        jnp.abs(leaf) + 0.5 if VARIANCE.search(path) else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, leaves)


def equations(fn: Any, variables: Any, *inputs: Any, **static: Any) -> int:
    """The equations of a function, those of called functions included."""
    closed = jax.make_jaxpr(lambda *a: fn(*a, **static))(variables, *inputs)
    return count(closed.jaxpr)


def count(jaxpr: Any) -> int:
    inner = [
        sub
        for equation in jaxpr.eqns
        for sub in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
        if is_jaxpr(sub)
    ]
    return len(jaxpr.eqns) + sum(count(getattr(sub, "jaxpr", sub)) for sub in inner)


def is_jaxpr(value: Any) -> bool:
    return isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)


def fixed(graph: Any) -> dict[str, float]:
    """Why parameters have a fixed axis: the three reasons that hold most, with their share."""
    sizes = {v.path: math.prod(v.shape) for v in graph.variables.values() if v.trained}
    reasons: Counter[str] = Counter()
    for path, size in sizes.items():
        parts = [line.split(", fixed: ")[1] for line in graph.explain(path).splitlines()[1:]
                 if ", fixed: " in line]  # fmt: skip
        reasons.update(dict.fromkeys(parts, size))
    total = sum(sizes.values())
    return {reason: round(n / total, 4) for reason, n in reasons.most_common(3)}


def failed(row: dict[str, Any]) -> bool:
    """Whether a model could not be resized, or is not equal."""
    if "error" in row:
        return True
    return not difference(row) <= TOLERANCE or row["left"] >= 1


def difference(row: dict[str, Any]) -> float:
    """How far a model that was resized is from the masked one."""
    return max(row["values"] or 0.0, row["gradients"] or 0.0)


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    name = f"{row['package']}/{row['model']}"
    if "error" in row:
        print(f"{name:34} FAILED {row['error'][:400]}", flush=True)
        return
    values, grads = (
        "-" if row[key] is None else f"{row[key]:.0e}" for key in ("values", "gradients")
    )
    print(
        COLUMNS.format(
            name,
            row["equations"],
            f"{row['seconds']:.2f}",
            f"{row['groups']}/{row['exact']}",
            f"{row['left']:.0%} {row['left_with_inexact']:.0%}",
            values,
            grads,
            " ".join([*["FAILED"] * failed(row), *row["unknown"], row.get("note", "")]),
        ),
        flush=True,
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over all models."""
    good = [row for row in rows if not failed(row)]
    return {
        "models": len(rows),
        "passed": len(good),
        "failed": [f"{r['package']}/{r['model']}" for r in rows if failed(r)],
        "median_left": float(np.median([r["left"] for r in good] or [1.0])),
        "median_left_with_inexact": float(
            np.median([r["left_with_inexact"] for r in good] or [1.0])
        ),
        "largest_difference": max(map(difference, good), default=None),
        "largest_seconds": max([r["seconds"] for r in good], default=None),
        "hardly_shrinkable": [f"{r['package']}/{r['model']}" for r in good if r["left"] > 0.75],
        "unknown": dict(Counter(p for r in good for p in r["unknown"])),
    }


def write(path: Path, rows: list[dict[str, Any]], totals: dict[str, Any], script: str) -> None:
    """The result, with what it was obtained with."""
    names = sorted(requirements())
    result = {
        "command": " ".join([f"python {script}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, cpu",
        "python": platform.python_version(),
        "versions": {n: importlib.metadata.version(n) for n in ["jax", "flax", "numpy", *names]},
        "totals": totals,
        "rows": rows,
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    path.write_text(text.replace(sysconfig.get_path("purelib") + "/", "") + "\n")


def requirements() -> list[str]:
    """The packages of models in requirements.txt, which are those with an exact version."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return [line.split("==")[0] for line in lines if "==" in line]


if __name__ == "__main__":
    raise SystemExit(main())
