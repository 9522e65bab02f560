"""What a network says on the test set: a confusion matrix, or tokens; and all of its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.tables import percent, table


def metrics_table(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Every metric of every network, where there are several."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.get("metrics") or ()))
    if len(names) < 2:
        return ""
    rows = [
        [one["name"], *(_shown((one.get("metrics") or {}).get(name)) for name in names)]
        for one in outcomes
    ]
    return table("All metrics", ["network", *(name.replace("_", " ") for name in names)], rows)


def answers_section(told: Mapping[str, Any]) -> str:
    """What `experiments.tested` found, as a table; empty if that is nothing."""
    if "confusion" in told:
        return _confusion(told["confusion"])
    if told.get("texts"):
        return _texts(told["texts"])
    return _samples(told["samples"]) if told.get("samples") else ""


def _texts(texts: Sequence[Mapping[str, str]]) -> str:
    rows = [[f"{k}, {who}", text] for k, one in enumerate(texts, 1) for who, text in one.items()]
    shown = table("Texts", ["sequence", "text"], rows)
    return (
        "<p>The beginning of the first test sequences, and how each network goes on, always with "
        f"the most likely token.</p>{shown}"
    )


def _confusion(counts: Sequence[Sequence[int]]) -> str:
    total = sum(map(sum, counts))
    right = sum(row[k] for k, row in enumerate(counts))
    rows, cells = [], []
    for k, row in enumerate(counts):
        known = sum(row)
        rows.append([f"{k}", *(f"{n}" if n else "·" for n in row)])
        rows[-1].append(percent(row[k] / known if known else None))
        cells.append(k + 1)
    head = ["class", *map(str, range(len(counts))), "right"]
    caption = "Rows: the class of the example; columns: the class that the network gives"
    return (
        f"<p>{right:,} of {total:,} test examples are classified correctly.</p>"
        f"{table(caption, head, rows, strong=cells)}"
    )


def _samples(samples: Sequence[Mapping[str, Sequence[int]]]) -> str:
    rows = [
        [f"{k}, {what}", " ".join(map(str, one[what]))]
        for k, one in enumerate(samples, 1)
        for what in ("given", "predicted")
    ]
    shown = table("Tokens", ["sequence", "tokens"], rows)
    return (
        "<p>The first test sequences: the tokens that the network is given, and the most likely "
        f"token that it predicts at each position.</p>{shown}"
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
