"""Refits the Edge TPU model's constants to published latencies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from absl import flags
from rich.console import Console

from experiments.commands.fit_edge_tpu import COMMAND
from experiments.console.command import launch
from experiments.console.flags import check_output
from experiments.published import PUBLISHED, FitError, Network, read_published, read_tables
from morph.files import write_text
from morph.untrusted import printable
from regularizers import json_files
from regularizers.costs.edge_tpu import EDGE_TPU, EdgeTPU, seconds
from regularizers.costs.form import EXACT

FITTED = ("utilisation", "depthwise_steps", "bytes_per_s", "startup_s")
ALTERNATIVES: Mapping[str, tuple[Any, ...]] = {
    "overlap": (0.0, 1.0),
    "cache_bytes": (7.0 * 2**20, 8.0 * 2**20),
    "instruction_bytes": (0.0, 4000.0),
    "tile": (8,),
    "in_step": (2, 8),
    "out_step": (32, 128),
}
_START = {"utilisation": 0.5, "depthwise_steps": 4.0, "bytes_per_s": 400e6, "startup_s": 0.3e-3}
_STEPS = 100  # of the fit; it takes about 8

Predictor: TypeAlias = Callable[["Network"], float]
Fit: TypeAlias = Callable[[Sequence["Network"]], Predictor]


# ---- Fit


def predict(network: Network, tpu: EdgeTPU = EDGE_TPU) -> float:
    """Seconds that the model gives a network."""
    layers, fixed = seconds(
        network.layers, network.input_bytes, network.output_bytes, EXACT, tpu=tpu
    )
    return float(layers.sum() + fixed)


def fit(networks: Sequence[Network], base: EdgeTPU = EDGE_TPU) -> EdgeTPU:
    """The `FITTED` constants with the least squares of log(predicted / published).

    The others stay as in `base`. Levenberg's method on the logarithms of the constants, from a
    start that no fit has seen.
    """
    if len(networks) <= len(FITTED):
        raise FitError(f"{len(FITTED)} constants need more than {len(networks)} trusted rows")
    x = np.log([_START[name] for name in FITTED])
    residuals = _residuals(x, base, networks)
    damping = 1e-2
    for _ in range(_STEPS):
        shifted = [_residuals(x + 1e-5 * one, base, networks) for one in np.eye(len(x))]
        slopes = (np.stack(shifted, axis=1) - residuals[:, None]) / 1e-5
        normal = slopes.T @ slopes
        step = np.linalg.solve(normal + damping * np.eye(len(x)), -slopes.T @ residuals)
        tried = _residuals(x + step, base, networks)
        if tried @ tried < residuals @ residuals:
            x, residuals, damping = x + step, tried, damping / 10
        else:
            damping *= 10
        if np.abs(step).max() < 1e-7:
            return _constants(x, base)
    raise FitError(f"the fit has not settled in {_STEPS} steps; constants: {_constants(x, base)}")


def _constants(x: np.ndarray, base: EdgeTPU) -> EdgeTPU:
    values = dict(zip(FITTED, np.exp(x).tolist(), strict=True))
    values["utilisation"] = min(values["utilisation"], 1.0)
    return replace(base, **values)


def _residuals(x: np.ndarray, base: EdgeTPU, networks: Sequence[Network]) -> np.ndarray:
    tpu = _constants(x, base)
    return np.log([predict(network, tpu) / network.seconds for network in networks])


def model_on(base: EdgeTPU) -> Fit:
    """The Edge TPU model with refitted constants, the others as in `base`."""

    def fit_model(networks: Sequence[Network]) -> Predictor:
        tpu = fit(networks, base)
        return lambda network: predict(network, tpu)

    return fit_model


def line_in(amount: Callable[[Network], float]) -> Fit:
    """A straight line from the logarithm of an amount to that of the latency."""

    def fit_line(networks: Sequence[Network]) -> Predictor:
        logs = np.log([[amount(network), network.seconds] for network in networks])
        slope, height = np.polyfit(logs[:, 0], logs[:, 1], 1)
        return lambda network: float(np.exp(slope * np.log(amount(network)) + height))

    return fit_line


def multiply_adds(network: Network) -> float:
    """Of all products and convolutions, padding counted."""
    of = network.layers
    weighted = of.weight_bytes > 0
    fan_in = np.where(of.kind == "depthwise conv", 1.0, of.in_channels)
    outputs = of.height * of.width * of.out_channels
    return float((weighted * outputs * of.window * fan_in).sum())


def parameters(network: Network) -> float:
    """Weights and biases; a bias has 4 bytes."""
    of = network.layers
    return float((of.weight_bytes - 3.0 * of.out_channels * (of.weight_bytes > 0)).sum())


BASELINES: Mapping[str, Fit] = {
    "log_macs": line_in(multiply_adds),
    "log_parameters": line_in(parameters),
}


# ---- Report


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ranks; equal values share theirs."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return (values[:, None] > values).sum(1) + 0.5 * (values[:, None] == values).sum(1)


def accuracy(published: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """How well some latencies are predicted."""
    errors = np.abs(predicted / published - 1.0)
    return {
        "rows": len(published),
        "median_error": float(np.median(errors)),
        "mean_error": float(errors.mean()),
        "largest_error": float(errors.max()),
        "spearman": spearman(predicted, published),
    }


def without(
    networks: Sequence[Network], fit_to: Fit, related: Callable[[Network], str]
) -> np.ndarray:
    """Every row as predicted by a fit to the trusted rows that are not related to it."""
    trusted = [network for network in networks if network.trusted]
    kin = {related(network) for network in networks}
    fits = {k: fit_to([other for other in trusted if related(other) != k]) for k in kin}
    return np.asarray([fits[related(network)](network) for network in networks])


def make_report(networks: Sequence[Network]) -> dict[str, Any]:
    """All but the command."""
    trusted = [network for network in networks if network.trusted]
    refitted = fit(trusted)
    others = [fit([other for other in trusted if other is not network]) for network in trusted]
    constants = {
        name: {
            "now": getattr(EDGE_TPU, name),
            "refitted": getattr(refitted, name),
            "lowest": min(getattr(tpu, name) for tpu in others),
            "highest": max(getattr(tpu, name) for tpu in others),
        }
        for name in FITTED
    }
    predicted = {"edge_tpu": _three_ways(networks, model_on(EDGE_TPU), predict)}
    for name, fit_to in BASELINES.items():
        predicted[name] = _three_ways(networks, fit_to, fit_to(trusted))
    kept = {
        "trusted": np.asarray([n.trusted for n in networks]),
        "all": np.ones(len(networks), bool),
    }
    published = np.asarray([network.seconds for network in networks])
    figures = {
        name: {
            rows: {way: accuracy(published[keep], values[keep]) for way, values in ways.items()}
            for rows, keep in kept.items()
        }
        for name, ways in predicted.items()
    }
    names = {"in_sample": ("predicted_ms", "error")}
    rows = []
    for position, network in enumerate(networks):
        row: dict[str, Any] = {
            "network": network.name,
            "key": network.key,
            "family": network.family,
            "trusted": network.trusted,
            "published_ms": network.seconds * 1e3,
        }
        for way, values in predicted["edge_tpu"].items():
            ms, error = names.get(way, (f"{way}_ms", f"{way}_error"))
            row[ms] = float(values[position]) * 1e3
            row[error] = float(values[position]) / network.seconds - 1.0
        rows.append(row)
    return {"constants": constants, "accuracy": figures, "networks": rows}


def _three_ways(
    networks: Sequence[Network], fit_to: Fit, fitted: Predictor
) -> dict[str, np.ndarray]:
    """Predicted seconds of all rows."""
    return {
        "in_sample": np.asarray([fitted(network) for network in networks]),
        "left_out": without(networks, fit_to, lambda network: network.key),
        "family_out": without(networks, fit_to, lambda network: network.family),
    }


def make_alternatives(networks: Sequence[Network]) -> list[dict[str, Any]]:
    """How accurate the model would be had the assumed constants other values."""
    trusted = [network for network in networks if network.trusted]
    published = np.asarray([network.seconds for network in trusted])
    found = []
    for name, values in ALTERNATIVES.items():
        for value in values:
            tpu = replace(EDGE_TPU, **{name: value})
            predicted = without(trusted, model_on(tpu), lambda network: network.key)
            found.append({"constant": name, "value": value} | accuracy(published, predicted))
    return found


def show(report: Mapping[str, Any]) -> None:
    """Prints a report as tables."""
    print(f"{'constant':<18}{'now':>12}{'refitted':>12}{'one row left out':>26}")
    for name, c in report["constants"].items():
        span = f"{c['lowest']:.4g} .. {c['highest']:.4g}"
        print(f"{name:<18}{c['now']:>12.4g}{c['refitted']:>12.4g}{span:>26}")
    print(
        f"\n{'network':<36}{'published':>10}{'predicted':>12}{'error':>8}{'left out':>10}"
        f"{'family out':>12}"
    )
    for row in report["networks"]:
        name = printable(row["network"]) + ("" if row["trusted"] else " *")
        print(
            f"{name:<36}{row['published_ms']:>7.1f} ms{row['predicted_ms']:>9.2f} ms"
            f"{row['error']:>+8.1%}{row['left_out_error']:>+10.1%}{row['family_out_error']:>+12.1%}"
        )
    print("* not trusted, not fitted\n")
    print(
        f"{'predictor':<16}{'rows':<12}{'':<10}{'median':>8}{'mean':>8}{'largest':>9}{'Spearman':>10}"
    )
    for predictor, by_rows in report["accuracy"].items():
        for rows, ways in by_rows.items():
            for way, a in ways.items():
                print(
                    f"{predictor:<16}{rows + ' ' + str(a['rows']):<12}{way.replace('_', ' '):<10}"
                    f"{a['median_error']:>8.1%}{a['mean_error']:>8.1%}{a['largest_error']:>9.1%}"
                    f"{a['spearman']:>10.3f}"
                )
    print("\nIf it were assumed that (trusted rows, left out)")
    for a in report["alternatives"]:
        print(
            f"{a['constant'] + ' = ' + format(a['value'], ',.0f'):<38}{a['median_error']:>8.1%}"
            f"{a['mean_error']:>8.1%}{a['largest_error']:>9.1%}{a['spearman']:>10.3f}"
        )


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """What the flags ask for."""
    if (options.table is None) != (options.networks is None):
        raise FitError("--table and --networks go together")
    if options.json:
        check_output("json", options.json)
    if options.table:
        networks = read_tables(Path(options.table), Path(options.networks))
    else:
        networks = read_published()
    table = Path(options.table or PUBLISHED).name
    report = {"command": command, "table": table} | make_report(networks)
    report["alternatives"] = make_alternatives(networks)
    if options.json:
        write_text(options.json, json_files.text(report, indent=1))
    show(report)
    if options.json:
        print(f"\nWritten: {printable(options.json)}")


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.fit_edge_tpu`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
