"""Interleaved timing, so that a busy machine slows all candidates alike."""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

# One thread: for JAX itself, for XLA, and for the libraries under numpy and torch.
ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Seconds(NamedTuple):
    """How long a call took.

    On one thread `cpu` is what `wall` would be if no other process took its share.
    """

    wall: float
    cpu: float


def timed(run: Callable[[], Any]) -> Seconds:
    """Seconds that one call takes, its result waited for."""
    start, cpu_start = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return Seconds(time.perf_counter() - start, time.process_time() - cpu_start)


def one_core() -> None:
    """Keeps this thread, and all processes that it starts, on one core (where Linux allows it)."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def on_one_core(*arguments: str, python: str = sys.executable) -> Any:
    """Runs a Python script in a fresh process, on one core and one thread.

    Args:
        *arguments: the script and its arguments.
        python: the interpreter that runs it.

    Returns:
        What the last line that it prints says, read as JSON.

    Raises:
        subprocess.CalledProcessError: if it fails; what it said went to stderr.
    """
    one_core()
    done = subprocess.run(
        [python, *arguments],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], repeats: int, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds per call of every candidate, one measurement of each in turn, `repeats` times.

    Args:
        candidates: by name, functions whose result is waited for. Each is called once to warm up.
        repeats: measurements per candidate.
        calls: calls per measurement.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        jax.block_until_ready(run())
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            for _ in range(calls):
                result = run()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def median_ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def report(rows: list[dict[str, Any]], out: str | None, **facts: Any) -> None:
    """Prints rows as a table and writes them as JSON to `out`, if given, after other facts.

    Values that are tables themselves are only written.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    shown = [name for name in names if not any(isinstance(row.get(name), dict) for row in rows)]
    texts = [shown, *([_text(row.get(name, "")) for name in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    if out:
        write(rows, out, **facts)


def write(rows: list[dict[str, Any]], out: str, **facts: Any) -> None:
    """Writes rows as JSON, after the command, the device, versions and other facts."""
    device = jax.devices()[0].device_kind
    versions = {name: version(name) for name in ("jax", "flax", "numpy")}
    command = shlex.join(["python", *sys.argv])
    table = {"command": command, "device": device, "versions": versions, **facts, "rows": rows}
    Path(out).write_text(json.dumps(table, indent=2) + "\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
