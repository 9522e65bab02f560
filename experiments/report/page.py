"""The page: one self-contained HTML file that opens offline, in light and in dark.

`page_of` is for other commands that have something to show; `write_report` tells one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.console.display import humanize
from experiments.pictures.plots import timeline
from experiments.report.answers import answers_section, metrics_table
from experiments.report.charts import Bar, Curve, bar_chart, line_chart, tradeoff_chart
from experiments.report.compression import compression_section, export_section
from experiments.report.networks import networks_section
from experiments.report.provenance import provenance_section, use_section
from experiments.report.runs import Run, read_run
from experiments.report.style import STYLE
from experiments.report.tables import esc, percent, table
from morph.architecture.architecture import Architecture
from regularizers.primitives import axes as ax

REPORT = "report.html"
_MOST_CURVES = 400  # points of one curve: what a screen can tell apart

# Of training curves: the title, the records' keys with their names, and how values are shown.
_PANELS: tuple[tuple[str, dict[str, str], dict[str, bool]], ...] = (
    ("Loss", {"loss": "loss"}, {"log": True}),
    ("Test accuracy", {"test_accuracy": "test accuracy"}, {"percent": True}),
    ("Test top-5 accuracy", {"test_top5_accuracy": "top-5 accuracy"}, {"percent": True}),
    ("Test log-likelihood, nats", {"test_log_likelihood": "log-likelihood"}, {}),
    ("Test explained variance", {"test_explained_variance": "explained variance"}, {}),
    (
        "Cost, share of the seed",
        {"cost_ratio": "alive", "target_ratio": "schedule"},
        {"percent": True},
    ),
    ("Strength λ", {"strength": "λ"}, {}),
)

# Nothing is fetched, and no script runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html` into the working directory of a run, a sweep or a retraining.

    Args:
        workdir: of the run; what it has left so far is told, if it is not finished.

    Returns:
        The page's path.

    Raises:
        RunError: if the directory holds no run, or a file in it is broken.
        OSError: if the page cannot be written.
    """
    run = read_run(workdir)
    path = run.workdir / REPORT
    path.write_text(page_of(run.title, _lead(run), list(_sections(run))), encoding="utf-8")
    return path


def page_of(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """A page.

    Args:
        title: plain text.
        lead: HTML under the title.
        sections: headings, plain text, each with its HTML.
    """
    body = "\n".join(
        f"<section>\n<h2>{esc(heading)}</h2>\n{content}\n</section>"
        for heading, content in sections
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{esc(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{esc(title)}</h1>\n"
        f"{lead}\n</header>\n{body}\n</main>\n</body>\n</html>\n"
    )


def quality(outcome: Mapping[str, Any]) -> tuple[str, str]:
    """The name and the value of what tells how good a network is: its accuracy, if it has one."""
    metrics = outcome.get("metrics") or {}
    if outcome["accuracy"] is not None or not metrics:
        return "accuracy", percent(outcome["accuracy"])
    name = next(iter(metrics))
    return name.replace("_", " "), f"{metrics[name]:.4g}"


def _lead(run: Run) -> str:
    """The headline: what was asked for, and what came of it."""
    seed = next((o for o in run.outcomes if o["name"] == "seed"), None)
    final = run.final
    name, unit = run.paid_for, run.target[1]
    state = "" if run.finished else '<p class="state">This run is not finished.</p>'
    if run.points:
        return state + _sweep_lead(run)
    if final is None:
        return state + '<p class="lead">No network was tested yet; below is how far it came.</p>'
    if seed is None:
        cards = [
            _card(*quality(final), "on the test set"),
            _card(name, humanize(final["cost"], unit), "per example"),
            _card("parameters", humanize(final["parameters"]), "trained"),
        ]
        return f'{state}<div class="cards">{"".join(cards)}</div>'
    cost = final["cost"] / seed["cost"]
    cards = [
        _card(*quality(final), f"seed {quality(seed)[1]}"),
        _card(
            name,
            humanize(final["cost"], unit),
            f"{percent(cost)} of the seed's {humanize(seed['cost'], unit)}",
        ),
        _card(
            "parameters",
            humanize(final["parameters"]),
            f"{percent(final['parameters'] / seed['parameters'])} of the seed's "
            f"{humanize(seed['parameters'])}",
        ),
    ]
    cards += _measured_cards(run.measured.get(seed["name"]), run.measured.get(final["name"]))
    gone = run.architecture.removed if run.architecture else ()
    removed = f", {len(gone)} block{'s' * (len(gone) > 1)} removed" if gone else ""
    text = f"The network that was learned ({esc(final['name'])}){removed}, beside the seed."
    return f'{state}<p class="lead">{text}</p><div class="cards">{"".join(cards)}</div>'


def _measured_cards(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """Time and memory of one example on the machine of the run, if they were measured."""
    if before is None or after is None:
        return []
    shown = (("seconds", "time here", "s"), ("bytes", "memory here", "B"))
    return [
        _card(
            what,
            humanize(after[key], unit),
            f"{percent(after[key] / before[key])} of the seed's {humanize(before[key], unit)}; "
            f"one example, {after['device']}",
        )
        for key, what, unit in shown
        if before[key]
    ]


def _sweep_lead(run: Run) -> str:
    seeds = len({o.get("seed", 0) for o in run.outcomes})
    budgets = len({o["budget"] for o in run.outcomes if "budget" in o})
    name, unit = run.target
    cost = humanize(run.results["seed_cost"], unit)
    return (
        f'<p class="lead">Accuracy against cost at {budgets} budgets, {seeds} '
        f"{'run' if seeds == 1 else 'runs'} of each. The seed costs {esc(cost)} ({esc(name)}).</p>"
    )


def _card(name: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><span class="what">{esc(name)}</span>'
        f'<span class="value">{esc(value)}</span><span class="note">{esc(note)}</span></div>'
    )


def _sections(run: Run) -> Iterator[tuple[str, str]]:
    """What there is to tell about this run."""
    if run.points:
        yield "Trade-off", _tradeoff(run)
        yield "Widths", _sweep_widths(run)
    elif run.outcomes:
        yield "Before and after", _outcomes(run)
    architecture = run.architecture or run.shrunk
    if architecture is not None:
        yield "Widths", _widths(architecture, run.shrunk)
        yield "Cost per layer", _layer_costs(architecture)
        if architecture.factorized:
            yield "Tensor networks", networks_section(architecture.factorized, run.target)
        if architecture.removed:
            yield "Removed blocks", _removed(architecture)
    if answers := answers_section(run.results.get("tested", {})):
        yield "Answers on the test set", answers
    if run.compressed:
        yield "Compressed", compression_section(run.compressed)
    if run.exported:
        yield "Exported", export_section(run.exported)
    if run.records:
        yield "Training", _training(run.records)
    if run.architecture is not None and run.finished and not run.points:
        yield "Use it", use_section(run)
    yield "How it was obtained", provenance_section(run)


def outcome_rows(
    outcomes: Sequence[Mapping[str, Any]],
    unit: str,
    measured: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[list[str]]:
    """Networks side by side: accuracy, cost, FLOPs, parameters, each beside the first's.

    Where FLOPs are the cost they are not said twice.

    Args:
        outcomes: of the networks.
        unit: of the cost.
        measured: time and memory by their names; empty where nobody measured.
    """
    first = outcomes[0]

    def ratio(outcome: Mapping[str, Any], key: str) -> str:
        return percent(outcome[key] / first[key]) if first[key] else "–"

    return [
        [
            outcome["name"],
            quality(outcome)[1],
            humanize(outcome["cost"], unit),
            ratio(outcome, "cost"),
            *([] if unit == "FLOP" else [humanize(outcome["flops"], "FLOP")]),
            humanize(outcome["parameters"]),
            ratio(outcome, "parameters"),
            *(_times(measured, first["name"], outcome["name"]) if measured else ()),
            f"{outcome['steps']:,}",
        ]
        for outcome in outcomes
    ]


def _times(measured: Mapping[str, Mapping[str, Any]], first: str, name: str) -> list[str]:
    """The time of a network, and its ratio to the first's."""
    if name not in measured:
        return ["–", "–"]
    seconds = measured[name]["seconds"]
    base = measured[first]["seconds"] if first in measured else None
    return [humanize(seconds, "s"), percent(seconds / base if base else None)]


def _outcomes(run: Run) -> str:
    name, unit = run.paid_for, run.target[1]
    base = f"of {run.outcomes[0]['name']}"
    measured = quality(run.outcomes[0])[0]
    flops = [] if unit == "FLOP" else ["FLOPs"]
    times = ["time here", base] if run.measured else []
    head = ["network", measured, name, base, *flops, "parameters", base, *times, "steps"]
    rows = outcome_rows(run.outcomes, unit, run.measured)
    told = table("Every network of the run", head, rows) + metrics_table(run.outcomes)
    for outcome in run.outcomes:
        if outcome.get("logit_difference") is not None:
            told += f'<p class="small">{esc(outcome["name"])}: {esc(agreement(outcome))}.</p>'
    return told


def agreement(outcome: Mapping[str, Any]) -> str:
    """How well a shrunk network agrees with the dense one, in words."""
    said = outcome.get("same_predictions")
    same = {None: "", True: ", the same predictions", False: ", not all the same predictions"}[said]
    what = "output" if said is None else "logit"
    return (
        f"dense and small network differ by {outcome['logit_difference']:.1e} of the largest "
        f"{what} on the test set{same}"
    )


def _widths(architecture: Architecture, shrunk: Architecture | None) -> str:
    between = shrunk if shrunk is not None and shrunk.widths != architecture.widths else None
    bars = []
    for layer in architecture.layers:
        seed = ax.size(layer.out_axis, architecture.seed_widths)
        gone = layer.path in architecture.gone_layers
        now = 0 if gone else ax.size(layer.out_axis, architecture.widths)
        bars.append(
            Bar(
                name=layer.path,
                seed=seed,
                now=now,
                between=ax.size(layer.out_axis, between.widths) if between else None,
                label="removed" if not now else f"{now}" if now == seed else f"{now} / {seed}",
                removed=not now,
            )
        )
    changed = sum(bar.now != bar.seed for bar in bars)
    alt = f"Output channels of {len(bars)} layers, before and after; {changed} changed"
    key = (
        '<ul class="legend"><li><i class="seed"></i>seed</li><li><i class="now"></i>learned</li>'
        + "<li><i class='wider'></i>learned, wider than the seed</li>"
        * any(bar.now > bar.seed for bar in bars)
        + ("<li><i class='between'></i>before expansion</li>" if between else "")
        + "</ul>"
    )
    return f"<p>Output channels of every layer.</p>{bar_chart(bars, alt)}{key}"


def _layer_costs(architecture: Architecture) -> str:
    before, after = architecture.flops(architecture.seed_widths), architecture.flops()
    counts = architecture.parameters(architecture.seed_widths), architecture.parameters()
    bars, rows, marks = [], [], []
    for layer, seed in before.items():
        now, gone = after[layer], layer in architecture.gone_layers
        share = percent(now / seed) if seed else "–"
        bars.append(
            Bar(name=layer, seed=seed, now=now, removed=gone, label="removed" if gone else share)
        )
        rows.append(
            [
                layer,
                humanize(seed, "FLOP"),
                humanize(now, "FLOP"),
                share,
                humanize(counts[0].get(layer, 0)),
                humanize(counts[1].get(layer, 0)),
            ]
        )
        marks.append("gone" if gone else "")
    total = sum(before.values()), sum(after.values())
    rows.append(
        [
            "all layers",
            humanize(total[0], "FLOP"),
            humanize(total[1], "FLOP"),
            percent(total[1] / total[0]) if total[0] else "–",
            humanize(sum(counts[0].values())),
            humanize(sum(counts[1].values())),
        ]
    )
    head = ["layer", "FLOPs before", "after", "left", "parameters before", "after"]
    alt = f"FLOPs of {len(bars)} layers, before (outlined) and after (filled)"
    return (
        f"<p>FLOPs of every layer for one example, 2 per multiply-add.</p>{bar_chart(bars, alt)}"
        f"<details open><summary>Numbers</summary>"
        f"{table('FLOPs and parameters of each layer', head, rows, [*marks, 'total'])}</details>"
    )


def _removed(architecture: Architecture) -> str:
    rows = [
        [block.name, block.kind, f"{len(block.layers)}", f"{len(block.variables)}"]
        for block in architecture.removed
    ]
    head = ["block", "kind", "layers", "variables"]
    return table("Blocks that left the network", head, rows, ["gone"] * len(rows))


def _training(records: Sequence[Mapping[str, Any]]) -> str:
    steps, phases = timeline(records)
    parts = []
    for title, keys, options in _PANELS:
        curves = []
        for key, label in keys.items():
            points = [
                (step, float(record[key]))
                for step, record in zip(steps, records, strict=True)
                if record.get(key) is not None
            ]
            if any(value for _, value in points) or (points and key != "strength"):
                every = -(-len(points) // _MOST_CURVES)
                thin = [*points[:-1:every], points[-1]]
                curves.append(Curve(label=label, points=thin, dashed=key == "target_ratio"))
        if curves:
            last = curves[0].points[-1][1]
            alt = f"{title} against the step, in {len(phases)} phases; at the end {last:.4g}"
            parts.append(f"<h3>{esc(title)}</h3>{line_chart(curves, phases, alt, **options)}")
    return "\n".join(parts) + '<p class="small">Horizontally: training steps.</p>'


def _tradeoff(run: Run) -> str:
    rows = [
        [
            point.series,
            point.label,
            percent(point.cost),
            point.shown(point.accuracy).replace("%", " %"),
            "–" if point.spread is None else f"± {point.shown(point.spread).replace('%', ' %')}",
            f"{point.runs}",
        ]
        for point in run.points
    ]
    alt = f"Accuracy against cost of {len(run.points)} networks, and their Pareto front"
    metric = run.points[0].metric.replace("_", " ")
    head = ["network", "budget", "cost, of seed", metric, "standard deviation", "runs"]
    return tradeoff_chart(run.points, alt) + table("Accuracy at every budget", head, rows)


def _sweep_widths(run: Run) -> str:
    """What every group became at every budget, the mean over seeds."""
    learned = [o for o in run.outcomes if o["kind"] == "learned"]
    budgets = list(dict.fromkeys(o["budget"] for o in learned))
    seed = next((o for o in run.outcomes if o["kind"] == "seed"), None)
    if not learned or seed is None:
        return "<p>No network was learned yet.</p>"

    def mean(group: str, budget: float) -> str:
        widths = [o["widths"].get(group, 0) for o in learned if o["budget"] == budget]
        return f"{statistics.mean(widths):.4g}"

    rows = [
        [group, f"{width}", *(mean(group, budget) for budget in budgets)]
        for group, width in seed["widths"].items()
    ]
    head = ["group", "seed", *(f"at {budget:.0%}" for budget in budgets)]
    return table("Learned widths (mean over runs)", head, rows)
