"""Interleaved timing, so that a busy machine slows all candidates alike."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax


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


def report(rows: list[dict[str, Any]], out: str | None) -> None:
    """Prints rows as a table and writes them as JSON to `out`, if given."""
    texts = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    if out:
        device = jax.devices()[0].device_kind
        Path(out).write_text(json.dumps({"device": device, "rows": rows}, indent=2) + "\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
