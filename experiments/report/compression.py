"""What compressing and exporting a network came to, as text and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.console.display import humanize
from experiments.report.tables import esc, table
from morph.compress.coding.table import HEAD, Row, cells


def stage_head(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The head of `stage_cells`: accuracy, or the first metric where there is none."""
    metrics = rows[-1].get("metrics") or {}
    name = "accuracy" if rows[-1]["accuracy"] is not None or not metrics else next(iter(metrics))
    return ("network", name.replace("_", " "), "parameters", "FLOPs", "bytes", "ms")


def stage_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A step's figures as text, in the order of `stage_head`; – for what was not measured."""
    shown = {
        "accuracy": "{:.4f}",
        "parameters": "{:,}",
        "flops": "",
        "bytes": "{:,}",
        "latency_ms": "{:.3g}",
    }
    texts = [row["name"]]
    metrics = row.get("metrics") or {}
    for name, form in shown.items():
        value = row.get(name)
        if name == "accuracy" and value is None and metrics:
            value = next(iter(metrics.values()))
        if value is None:
            texts.append("–")
        else:
            texts.append(form.format(value) if form else humanize(value))
    return tuple(texts)


def compression_section(figures: Mapping[str, Any]) -> str:
    """The steps and the leaves of a file, from `compressed.json`."""
    stages = figures["stages"]
    steps = table("After each step", stage_head(stages), [stage_cells(row) for row in stages])
    names = set(Row.__dataclass_fields__)
    rows = [Row(**{name: row[name] for name in names}) for row in figures["layers"]]
    leaves = table(f"{figures['file']}, leaf by leaf", HEAD, [cells(row) for row in rows])
    return (
        f"{steps}\n<p>Milliseconds are those of one example on {figures['device']}, with kernels "
        f"made dense in every call.</p>\n{leaves}"
    )


EXPORT_HEAD = ("file", "accuracy", "JAX's", "logit difference", "bytes", "ms")
_ACCURACIES = ("accuracy", "reference_accuracy")


def export_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """An export's figures as text, in the order of `EXPORT_HEAD`."""
    return (
        row["name"],
        *("–" if row[name] is None else f"{row[name]:.4f}" for name in _ACCURACIES),
        f"{row['logit_difference']:.1e}",
        f"{row['bytes']:,}",
        f"{row['latency_ms']:.3g}",
    )


def export_section(figures: Mapping[str, Any]) -> str:
    """The files and how well they agree with JAX, from `exported.json`."""
    caption = f"Each on the whole test set; milliseconds of one example on {figures['device']}"
    rows = table(caption, EXPORT_HEAD, [export_cells(row) for row in figures["rows"]])
    notes = [f"{row['name']}: {row['note']}" for row in figures["rows"] if row["note"]]
    lines = [*notes, *figures["edge_tpu"].splitlines()]
    return rows + "".join(f"\n<p>{esc(line)}</p>" for line in lines)
