"""Kernels that became tensor networks: what they are, and what they look like."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from experiments.console.display import humanize
from experiments.pictures.names import tail
from experiments.report.charts import svg, text
from experiments.report.tables import esc, percent, table
from morph.kernels.factorized import STACK, Format
from morph.kernels.planned import PlannedKernel

Place: TypeAlias = tuple[float, float]

_WIDTH, _WIDE = 430.0, 892.0  # of one column of the page, and of both
_STEP, _EDGE = 104.0, 34.0
_CORE = (29.0, 16.0)  # half of a core's box, across and down
_LEG = 27.0  # from the core's box to the end of an open edge
_FAN = 30.0  # between the ends of open edges of one side
_REACH = (124.0, 84.0)  # from the hub of a star to its cores, across and down
_NAME_LENGTH = 44
_OPEN = 12  # so many are drawn at once; more are folded away
NBSP = "\N{NO-BREAK SPACE}"
ROLES = {"i": "input", "o": "output", "s": "window"}


def networks_section(kernels: Mapping[str, PlannedKernel], target: tuple[str, str]) -> str:
    """The drawings and the numbers of all factorized kernels.

    Args:
        kernels: by path.
        target: the name of the cost and its unit.
    """
    figures = [_figure(path, kernel) for path, kernel in kernels.items()]
    more = len(figures) - _OPEN
    folded = (
        f"<details><summary>{more} more</summary>{_grid(figures[_OPEN:])}</details>"
        if more > 0
        else ""
    )
    roles = {role for kernel in kernels.values() for role in kernel.roles} & ROLES.keys()
    key = "".join(
        f'<li><i class="{name}"></i>{name}</li>' for role, name in ROLES.items() if role in roles
    )
    notes = "".join(
        f'<p class="small">{esc(layer(path))}: {esc(note)}.</p>'
        for path, kernel in kernels.items()
        for note in kernel.notes
    )
    return (
        "<p>Every box is an array, every line between boxes a sum over as many terms as stand on "
        "it. Open lines are the axes of the kernel.</p>"
        f"{_grid(figures[:_OPEN])}{folded}"
        f'<ul class="legend networks-key">{key}<li><i class="bond"></i>bond, its dimension</li>'
        f"</ul>{_numbers(kernels, target)}{notes}"
    )


def layer(path: str) -> str:
    """The short name of a kernel."""
    return path.removeprefix("params/").removesuffix("/kernel")


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="networks">{"".join(figures)}</div>'


def _figure(path: str, kernel: PlannedKernel) -> str:
    before, after = kernel.parameters
    wide = " wide" if _is_wide(kernel.format) else ""
    return (
        f'<figure class="network{wide}"><figcaption><b>{esc(tail(layer(path), _NAME_LENGTH))}</b>'
        f"<span>{esc(kernel.format.kind)}, {esc(humanize(after))} of {esc(humanize(before))} "
        f"parameters</span></figcaption>{network_chart(kernel, _alt(path, kernel))}</figure>"
    )


def _alt(path: str, kernel: PlannedKernel) -> str:
    shape = " x ".join(map(str, kernel.shape))
    ranks = ", ".join(f"{bond} {rank}" for bond, rank in kernel.ranks.items()) or "none"
    return f"{layer(path)}: a {kernel.format.kind} network for {shape}; ranks: {ranks}"


def _numbers(kernels: Mapping[str, PlannedKernel], target: tuple[str, str]) -> str:
    costs = list(dict.fromkeys(name for kernel in kernels.values() for name in kernel.costs))
    rows = []
    for path, kernel in kernels.items():
        before, after = kernel.parameters
        row = [
            layer(path),
            kernel.format.kind,
            f" ×{NBSP}".join("·".join(map(str, own)) for own in kernel.factors),
            ", ".join(map(str, kernel.ranks.values())) or "–",
            percent(kernel.error).replace(" ", NBSP),
            _amount(before),
            _amount(after),
        ]
        for name in costs:
            unit = target[1] if name == target[0] else ""
            seed, now = kernel.costs.get(name, (math.nan, math.nan))
            row += [_amount(seed, unit), _amount(now, unit)] if seed == seed else ["–", "–"]
        rows.append(row)
    head = ["layer", "kind", "factors", "ranks", "error", "parameters before", "after"]
    head += [words for name in costs for words in (f"{name.replace('_', ' ')} before", "after")]
    told = table("Kernels that are tensor networks", head, rows)
    return told + (
        '<p class="small">Error: what the cores lack of the kernel that they were made from, of '
        "its norm, before any further training.</p>"
    )


def _amount(value: float, unit: str = "") -> str:
    return humanize(value, unit).replace(" ", NBSP)


def network_chart(kernel: PlannedKernel, alt: str) -> str:
    """A tensor network: a chain from left to right, or a star with its hub below.

    Args:
        kernel: whose format and sizes are drawn.
        alt: the same in words.
    """
    format, sizes = kernel.format, kernel.sizes
    places = _chain(format) if _is_chain(format) else _star(format)
    parts: list[str] = []
    for bond, cores in _bonds(format).items():
        parts += _bond(bond, sizes[bond], [places[k] for k in cores])
    legs = [end for k in range(len(places)) for end in _legs(format, k, places)]
    for label, (start, end) in legs:
        parts += _leg(label, sizes[label], start, end)
    for name, own, (x, y) in zip(format.names, format.labels, places, strict=True):
        parts += _core(name, " x ".join(str(sizes[label]) for label in own), x, y)
    points = [*places, *(end for _, (_, end) in legs)]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    width = max(_WIDE if _is_wide(format) else _WIDTH, right - left + 2 * _EDGE)
    x, y, height = (left + right - width) / 2, top - 30, bottom - top + 60
    if STACK in sizes:
        parts.append(_box("plate", x + 4, y + 2, width - 8, height - 4))
        parts.append(text(x + 14, y + 18, f"{sizes[STACK]} of them, a stack", "stack"))
    return svg(parts, width, height, alt, "tensors", (x, y))


def _own_legs(format: Format, k: int) -> list[str]:
    """The labels of a core's open edges; the axis of a stack is drawn around all of them."""
    open_ = {label for axis in format.axes for label in axis if label != STACK}
    return [label for label in format.labels[k] if label in open_]


def _bonds(format: Format) -> dict[str, list[int]]:
    """The cores that share each bond."""
    return {
        bond: [k for k, own in enumerate(format.labels) if bond in own] for bond in format.bonds
    }


def _is_chain(format: Format) -> bool:
    """Whether every bond joins neighbours."""
    return all(len(ks) == 2 and ks[1] - ks[0] == 1 for ks in _bonds(format).values())


def _is_wide(format: Format) -> bool:
    return _is_chain(format) and len(format.names) > 4


def _chain(format: Format) -> list[Place]:
    return [(_STEP * k, 0.0) for k in range(len(format.names))]


def _star(format: Format) -> list[Place]:
    """Cores on half an ellipse around the one that all bonds meet, if there is one."""
    count = len(format.names)
    met = Counter(k for cores in _bonds(format).values() for k in cores)
    hub = next((k for k in range(count) if count > 2 and met[k] == count - 1 > 1), None)
    order = "iso"  # inputs on the left, outputs on the right
    rim = sorted(
        (k for k in range(count) if k != hub),
        key=lambda k: min(
            (order.find(label[0]) for label in _own_legs(format, k)), default=len(order)
        ),
    )
    places = [(0.0, 0.0)] * count
    for n, k in enumerate(rim):
        angle = math.pi * (1.0 - n / max(1, len(rim) - 1))
        places[k] = _REACH[0] * math.cos(angle), -round(_REACH[1] * math.sin(angle), 1)
    return places


def _legs(
    format: Format, k: int, places: Sequence[Place]
) -> Iterator[tuple[str, tuple[Place, Place]]]:
    """The open edges of a core, from its box outwards: of a chain outputs go down, others up."""
    x, y = places[k]
    own = _own_legs(format, k)
    if _is_chain(format):
        for side in (-1, 1):
            here = [label for label in own if (label[0] == "o") == (side > 0)]
            for n, label in enumerate(here):
                shift = (n - (len(here) - 1) / 2) * _FAN
                start = (x + shift * 0.6, y + side * _CORE[1])
                yield label, (start, (x + shift, start[1] + side * _LEG))
        return
    for n, label in enumerate(own):
        shift = (n - (len(own) - 1) / 2) * _FAN
        if y == 0.0 and x:  # at the ends of the half ellipse
            away = math.copysign(1.0, x)
            start = (x + away * _CORE[0], y + shift)
            yield label, (start, (start[0] + away * _LEG, y + shift))
        else:
            start = (x + shift * 0.6, y - _CORE[1])
            yield label, (start, (x + shift, start[1] - _LEG))


def _bond(bond: str, size: int, places: Sequence[Place]) -> Iterator[str]:
    """A line between two cores; a dot where more meet."""
    thick = 1.4 + 0.55 * math.log2(size)
    told = f"<title>{esc(bond)}: {size}</title>"
    if len(places) == 2:
        (x0, y0), (x1, y1) = places
        yield f'<g class="bond">{told}{_line((x0, y0), (x1, y1), thick)}'
        yield text((x0 + x1) / 2, (y0 + y1) / 2 + 4, f"{size}", "middle size") + "</g>"
        return
    yield f'<g class="bond">{told}'
    for place in places:
        yield _line((0.0, 0.0), place, thick)
    yield '<circle class="copy" cx="0" cy="0" r="5"/>'
    yield text(0.0, 22.0, f"{size}", "middle size") + "</g>"


def _leg(label: str, size: int, start: Place, end: Place) -> Iterator[str]:
    (_, y0), (x, y) = start, end
    yield f'<g class="{ROLES.get(label[0], "other")}"><title>{esc(label)}: {size}</title>'
    yield _line(start, end, 1.6)
    if y == y0:
        side = "end" if x < 0 else "begin"
        yield text(x + math.copysign(5.0, x), y + 4, f"{size}", f"{side} size") + "</g>"
    else:
        yield text(x, y + (15 if y > y0 else -5), f"{size}", "middle size") + "</g>"


def _core(name: str, shape: str, x: float, y: float) -> Iterator[str]:
    across, down = _CORE
    yield f'<g class="core"><title>{esc(name)}: {esc(shape)}</title>'
    yield _box("box", x - across, y - down, 2 * across, 2 * down)
    yield text(x, y + 4, name, "middle") + "</g>"


def _line(start: Place, end: Place, thick: float) -> str:
    (x0, y0), (x1, y1) = start, end
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke-width="{thick:.1f}"/>'


def _box(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        'rx="9"/>'
    )
