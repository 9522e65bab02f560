"""Latency on a machine whose operations were timed: a roofline with overheads, steps and a cache.

A kernel takes the sum of its amounts (one kernel, FLOPs, elements moved, ...), each times a fitted
price in seconds. Which amounts there are depends on its kind; all of them are in `amounts`. What
computing and moving take is added up: on a CPU that predicts a little better than the larger of
both, and makes the fit convex. `regularizers.calibration` finds the prices.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from regularizers import json_files
from regularizers.costs.form import Form, numpy_of
from regularizers.costs.work import Work
from regularizers.errors import InputError
from regularizers.json_files import JsonError

FORMAT = "morph calibration 1"
CALL = "call: calls"
LANES = 16  # channels that one vector instruction works on: a part of them costs as much as all
DEPTH = 4  # input channels that one step of a convolution's inner loop takes
NARROW = 16  # channels up to which XLA:CPU leaves a convolution to another library
FORK = 2048.0  # costly operations of a loop that is shared among threads
ELEMENT_BYTES = 4  # what is timed is float32

CONVOLUTIONS = ("conv", "depthwise conv", "grouped conv", "transposed conv")
NAMED = (*CONVOLUTIONS, "dense", "product", "pool", "reduce", "elementwise")
# Elementwise functions that are made of several polynomials, and of one.
COSTLY = frozenset({"erf", "erfc", "erf_inv", "lgamma", "digamma", "igamma", "igammac"})
SIMPLE = frozenset({
    "exp", "exp2", "log", "tanh", "logistic", "log1p", "expm1", "pow", "sin", "cos", "tan",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What amounts cost on one machine.

    Attributes:
        seconds_per_unit: the price of every amount, {"kind: unit": seconds}.
        cache_bytes: how many bytes of weights stay near the cores from one call to the next.
        device: what was timed.
        versions: of the software that compiled it.
        dtype: of what was timed.
        date: when, in ISO 8601.
        programs: how many programs were timed.
        held_out_error: median absolute percentage error on programs left out of the fit, as a
            share (0.1 is 10 %).
        spread: median interquartile range of the repeats over their median.
        error_bar: about two thirds of predictions are within this share of the truth.
        busy: whether something else used the machine meanwhile.

    Raises:
        ValueError: if a figure is unphysical; it says which.
    """

    seconds_per_unit: Mapping[str, float] = field(repr=False)
    cache_bytes: float
    device: str
    versions: Mapping[str, str]
    dtype: str = "float32"
    date: str = ""
    programs: int = 0
    held_out_error: float
    spread: float
    error_bar: float
    busy: bool = False

    def __post_init__(self) -> None:
        if not any(value > 0.0 for value in self.seconds_per_unit.values()):
            raise InputError("a calibration needs at least one price above zero; found none")
        for name, value in self.seconds_per_unit.items():
            _physical(f"the price of {name!r}", value, "s", zero=True)
        _physical("cache_bytes", self.cache_bytes, "B", zero=False)
        for name in ("held_out_error", "spread", "error_bar"):
            _physical(name, getattr(self, name), "", zero=True)
        object.__setattr__(self, "seconds_per_unit", MappingProxyType(dict(self.seconds_per_unit)))
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))

    def seconds(self, work: Work, form: Form) -> Any:
        """Seconds that one run of every kernel takes [kernels]; the call itself is in the first.

        This is a price of `regularizers.costs.work`:

            cost_of_work(graph, "latency", "s", calibration.seconds)

        Raises:
            ValueError: if the work has kernels of a kind that was not timed.
        """
        table = amounts(work, form, self.cache_bytes)
        total: Any = 0.0
        for name, amount in table.items():
            if name in self.seconds_per_unit:
                total = total + self.seconds_per_unit[name] * amount
            elif not isinstance(amount, jax.Array) and np.any(amount):
                raise InputError(
                    f"this calibration of {self.device} has no price for {name!r}: it timed no "
                    "such kernel; calibrate again with all programs"
                )
        return total

    def to_json(self) -> str:
        """As text for people and programs."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("seconds_per_unit", "versions"):
            values[name] = dict(values[name])
        return json.dumps({"format": FORMAT, **values}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Calibration:
        """The inverse of `to_json`.

        Raises:
            ValueError: if it is no calibration.
        """
        try:
            values = json_files.parse(text)
        except JsonError as error:
            raise InputError(f"not a calibration, and no JSON: {error}") from None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise InputError(f'not a calibration: it does not say "format": "{FORMAT}"')
        names = {f.name for f in fields(cls)}
        if values.keys() != names:
            odd = sorted(values.keys() ^ names)
            raise InputError(f"not a calibration: missing or unknown entries {odd}")
        try:
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise InputError(f"not a calibration: {error}") from None

    def save(self, path: str | Path) -> None:
        """Writes `to_json` to a file, whole or not at all; makes its folder."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.part")
        draft.write_text(self.to_json(), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads what `save` wrote.

        Raises:
            ValueError: if the file is no calibration. FileNotFoundError: if there is none.
        """
        try:
            return cls.from_json(json_files.read_bytes(path))
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None


def _physical(what: str, value: Any, unit: str, *, zero: bool) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InputError(f"{what} must be a number, found {value!r}")
    if not math.isfinite(value) or value < 0.0 or (value == 0.0 and not zero):
        bound = "at least 0" if zero else "above 0"
        raise InputError(f"{what} must be finite and {bound}, found {value} {unit}".rstrip())


def amounts(work: Work, form: Form, cache_bytes: float) -> dict[str, Any]:
    """What the seconds of kernels are made of: {"kind: unit": amounts [kernels]}.

    Args:
        work: what every kernel does.
        form: hard or smooth steps.
        cache_bytes: how many bytes of weights stay near the cores from one call to the next.
    """
    facts = work.facts
    first = np.zeros(len(facts.kind))
    first[:1] = 1.0 / np.maximum(facts.count[:1], 1.0)
    table: dict[str, Any] = {CALL: first}
    # Every call reads all weights anew, from further away the more there are.
    weight_bytes = ELEMENT_BYTES * (work.weights * facts.count).sum()
    far = work.weights * (weight_bytes / (weight_bytes + cache_bytes))
    parts = (*_convolutions(work, form, far), *_products(work, form, far), *_loops(work))
    for kind, mask, units in parts:
        for unit, amount in units.items():
            table[f"{kind}: {unit}"] = mask * amount
    return table


Part = tuple[str, Any, dict[str, Any]]  # kind, which kernels are of it [kernels], its amounts


def _convolutions(work: Work, form: Form, far: Any) -> list[Part]:
    facts = work.facts
    xp = numpy_of(work.flops)
    ci, co = work.in_channels, work.out_channels
    conv, depthwise = (_is(work, kind) for kind in ("conv", "depthwise conv"))
    # A window on a single position meets it once; the rest is padding, which XLA drops.
    cells = facts.in_height * facts.in_width
    taps = np.where((conv > 0.0) & (cells == 1.0), 1.0, facts.window)
    flops = work.flops * (taps / facts.window)
    patches = work.positions * taps
    step = {
        "flops": flops * _round_up(co, LANES, form),
        "ragged": patches * _partial(ci, DEPTH, form) * _partial(co, 4 * LANES, form),
        "read": work.read,
        "written": work.written,
        "weights": work.weights,
        "far_weights": far,
    }
    cramped = np.where(taps > cells, 1.0, 0.0)  # the window is larger than the map
    narrow = (1.0 - cramped) * xp.where(xp.maximum(ci, co) <= NARROW, 1.0, 0.0)
    wide = 1.0 - cramped - narrow
    # Several output channels per input channel: XLA makes an ordinary convolution of it.
    groups = work.read * facts.height * facts.width / xp.maximum(work.positions * cells, 1e-6)
    multiplied = depthwise * xp.where(co > 1.5 * groups, 1.0, 0.0)
    depthwise = depthwise - multiplied
    point = conv * np.where(taps == 1.0, 1.0, 0.0)
    conv = conv - point
    plain = {"kernels": 1.0, "flops": flops, "written": work.written}
    weighted = {**plain, "weights": work.weights}
    few = {"kernels": 1.0, "flops": flops}
    return [
        ("pointwise conv", point, {"kernels": 1.0, **step}),
        ("conv", conv * wide, {"kernels": 1.0, **step}),
        ("narrow conv", conv * narrow, {**plain, "patches": patches}),
        ("cramped conv", conv * cramped, {**plain, "weights": work.weights}),
        ("depthwise conv", depthwise * wide, weighted),
        ("narrow depthwise conv", depthwise * narrow, plain),
        ("cramped depthwise conv", depthwise * cramped, weighted),
        ("multiplied depthwise conv", multiplied * (1.0 - narrow), few),
        ("narrow multiplied depthwise conv", multiplied * narrow, few),
        ("grouped conv", _is(work, "grouped conv"), plain),
        ("transposed conv", _is(work, "transposed conv"), plain),
    ]


def _products(work: Work, form: Form, far: Any) -> list[Part]:
    xp = numpy_of(work.flops)
    dense = _is(work, "dense")
    one_row = xp.where(work.positions * work.batches <= 1.0, 1.0, 0.0)
    vector = {"kernels": 1.0, "weights": work.weights, "far_weights": far}
    moved = {"read": work.read, "written": work.written}
    rounded = work.flops * _round_up(work.out_channels, LANES, form)
    batched = {"kernels": 1.0, "batches": work.batches, "flops": work.flops}
    return [
        ("vector dense", dense * one_row, vector),
        ("dense", dense * (1.0 - one_row), {**vector, "flops": rounded, **moved}),
        ("product", _is(work, "product"), {**batched, **moved}),
    ]


def _loops(work: Work) -> list[Part]:
    facts = work.facts
    moved = {"kernels": 1.0, "moved": work.read + work.written}
    costly = work.transcendentals * np.asarray([_costly(names) for names in facts.primitives])
    elementwise = {
        "operations": work.operations,
        "transcendentals": work.transcendentals - costly,
        "costly": costly,
        "forks": costly / (costly + FORK),  # threads share a loop that is worth it
    }
    pool = {"kernels": 1.0, "taps": work.written * facts.window, "written": work.written}
    # Windows side by side: no element is read twice, and there is no padding to look out for.
    cells = np.maximum(facts.height * facts.width, 1.0)
    tiled = np.where(facts.window * cells <= facts.in_height * facts.in_width, 1.0, 0.0)
    other = (~np.isin(facts.kind.astype(str), NAMED)).astype(np.float64)
    return [
        ("pool", _is(work, "pool") * (1.0 - tiled), pool),
        ("tiled pool", _is(work, "pool") * tiled, {"kernels": 1.0, "read": work.read}),
        ("reduce", _is(work, "reduce"), {"kernels": 1.0, "read": work.read}),
        ("elementwise", _is(work, "elementwise"), {**moved, **elementwise}),
        ("move", other, moved),
    ]


def _is(work: Work, kind: str) -> np.ndarray:
    """1 for the kernels of a kind [kernels]."""
    return (work.facts.kind == kind).astype(np.float64)


def _round_up(channels: Any, step: int, form: Form) -> Any:
    """How many times as much whole steps are as the channels that they hold."""
    some = numpy_of(channels).maximum(channels, 1e-6)  # of no channels, no FLOPs either
    return form.ceil(some / step) * step / some


def _partial(channels: Any, step: int, form: Form) -> Any:
    """1 where `channels` is no multiple of `step`, else 0; smooth: 0."""
    return form.ceil((form.ceil(channels / step) * step - channels) / step)


def _costly(names: tuple[str, ...]) -> float:
    """The share of costly functions in the transcendental ones of a kernel."""
    costly = sum(name in COSTLY for name in names)
    return costly / max(1, costly + sum(name in SIMPLE for name in names))
