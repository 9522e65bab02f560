"""The channel graph as a picture: layers are boxes, groups are colours.

    save(graph, "channels.svg", title="resnet8")   # or channels.html, channels.png

Boxes stand in the order of the data flow, from top to bottom, as in Sugiyama's method: ranks by
longest path, one waypoint per source and rank for the lines that cross a rank, order within a rank
by barycentres, and places that are the least squares nearest to their neighbours'.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pictures.facts import facts_of, groups_of
from experiments.pictures.flow import PALETTE, Flow, Node, Segment, flow_of
from experiments.pictures.layout import (
    BOX_HEIGHT,
    BOX_WIDTH,
    JOIN_SIZE,
    MARGIN,
    PILL_HEIGHT,
    STRIP,
    Layout,
    lay_out,
)
from experiments.pictures.names import tail
from morph.imports import extra
from morph.untrusted import in_html
from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError

_DARK = frozenset({"#0072B2", "#882255", "#117733", "#332288", "#AA4499", "#D55E00", "#009E73"})
_INK, _MUTED, _LINE = "#222222", "#6b6b6b", "#9a9a9a"

_STRIP_CHARACTER, _NAME_CHARACTER = 6.6, 8.4  # how wide a character is at most, roughly
_MOST_SEGMENTS = 6  # on one edge of a box


def save(graph: ChannelGraph, path: str | Path, title: str) -> None:
    """Draws `graph` into a file; its ending, .svg, .html or .png, chooses the format.

    Raises:
        ValueError: for another ending.
        OSError: if the file cannot be written.
    """
    drawn = writer_of(path)(graph, title)
    Path(path).write_bytes(drawn if isinstance(drawn, bytes) else drawn.encode())


def writer_of(path: str | Path) -> Callable[[ChannelGraph, str], str | bytes]:
    """The function that draws what a file of this name holds.

    Raises:
        ValueError: if the name ends in none of .svg, .html and .png.
        MissingExtraError: for a .png, if what draws it is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise InputError(
            f"cannot draw into {str(path)!r}: the ending chooses the format, and "
            f"{repr(suffix) if suffix else 'no ending'} is none of {', '.join(_WRITERS)}."
        )
    if suffix == ".png":
        extra("resvg_py", "a picture as PNG", "plots")  # before any work is done
    return _WRITERS[suffix]


def to_png(graph: ChannelGraph, title: str) -> bytes:
    """The picture in pixels, two for each of the SVG's, with the font of matplotlib.

    Raises:
        MissingExtraError: if what draws it is not installed.
    """
    resvg = extra("resvg_py", "a picture as PNG", "plots")
    matplotlib = extra("matplotlib", "a picture as PNG", "plots")
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    names = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
    drawn = resvg.svg_to_bytes(
        svg_string=_svg(graph, title),
        zoom=2.0,
        skip_system_fonts=True,
        font_files=[str(fonts / name) for name in names],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
    )
    return bytes(drawn)


def to_svg(graph: ChannelGraph, title: str) -> str:
    """The picture as one SVG document.

    Args:
        graph: what `trace_channels` found.
        title: written above the picture.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _svg(graph, title)


def to_html(graph: ChannelGraph, title: str) -> str:
    """The picture as a page of its own: the SVG, a list of the groups, and highlighting.

    Args:
        graph: what `trace_channels` found.
        title: written above the picture.
    """
    colors = color_of(graph)
    items = "\n".join(
        f'<li class="g{i}" data-g="g{i}"><i style="background:{colors[name]}"></i>'
        f"{_breakable(name)} <b>{group.width}</b>{'' if group.exact else ' inexact'}</li>"
        for i, (name, group) in enumerate(graph.groups.items())
    )
    return _PAGE.format(
        policy=_POLICY,
        script=_SCRIPT,
        title=in_html(title),
        groups=groups_of(graph),
        items=items,
        svg=_svg(graph, title),
    )


def _breakable(name: str) -> str:
    """A name that may be broken after a slash or an underscore, and nowhere else."""
    return in_html(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


_WRITERS: dict[str, Callable[[ChannelGraph, str], str | bytes]] = {
    ".svg": to_svg,
    ".html": to_html,
    ".png": to_png,
}


def color_of(graph: ChannelGraph) -> dict[str, str]:
    """The colour of every group; with more groups than colours they come round again."""
    return dict(zip(graph.groups, itertools.cycle(PALETTE), strict=False))


@dataclass(frozen=True, kw_only=True)
class _Style:
    """What a group looks like."""

    colors: Mapping[str, str]
    classes: Mapping[str, str]
    facts: Mapping[str, Sequence[str]]  # of layers

    def fill(self, group: str) -> str:
        return self.colors[group] if group else "url(#fixed)"

    def stroke(self, group: str) -> str:
        return self.colors[group] if group else _LINE

    def ink(self, group: str) -> str:
        return "#ffffff" if group and self.colors[group] in _DARK else _INK


def _svg(graph: ChannelGraph, title: str) -> str:
    flow = flow_of(graph)
    layout = lay_out(flow)
    style = _Style(
        colors=color_of(graph),
        classes={name: f"g{i}" for i, name in enumerate(graph.groups)},
        facts=facts_of(graph),
    )
    width, height = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">',
        f"<style>{_DARKENED}</style>",
        _DEFS,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_header(title, graph, flow),
        *_lines(flow, layout, style),
    ]
    for node, x, y in zip(flow.nodes, layout.x, layout.y, strict=True):
        draw = {"join": _draw_join, "input": _draw_input}.get(node.kind, _draw_box)
        parts += draw(node, x, y, style)
    return "\n".join([*parts, "</svg>\n"])


def _header(title: str, graph: ChannelGraph, flow: Flow) -> Iterator[str]:
    layers = sum(node.kind == "layer" for node in flow.nodes)
    yield _text(MARGIN, 30, title, size=16, weight="bold", anchor="start")
    yield _text(MARGIN, 48, f"{layers} layers, {groups_of(graph)}", anchor="start")
    yield (
        f'<rect x="{MARGIN}" y="58" width="26" height="11" rx="2" fill="{PALETTE[0]}"/>'
        f'<rect x="{MARGIN + 30}" y="58" width="26" height="11" rx="2" fill="{PALETTE[1]}"/>'
    )
    words = "one color: one group, which shrinks together"
    yield _text(MARGIN + 62, 67, words, size=11, anchor="start")
    yield (
        f'<rect x="{MARGIN + 320}" y="58" width="26" height="11" rx="2" fill="url(#fixed)" '
        f'stroke="{_LINE}" stroke-width="0.5"/>'
    )
    words = "fixed width    + added   × multiplied   ‖ concatenated"
    yield _text(MARGIN + 352, 67, words, size=11, anchor="start")


def _lines(flow: Flow, layout: Layout, style: _Style) -> Iterator[str]:
    """The data flow; what lines from one source share is drawn once."""
    drawn: set[tuple[Any, ...]] = set()
    ports = [_ports(node, x) for node, x in zip(flow.nodes, layout.x, strict=True)]
    for (a, b), groups in flow.edges.items():
        points = layout.lines[a, b]
        for lane, group in enumerate(groups or ("",)):
            shift = 4.0 * (lane - (len(groups or ("",)) - 1) / 2)
            start = ports[a][1].get(group, points[0][0] + shift)
            end = ports[b][0].get(group, points[-1][0] + shift)
            xs = [start, *(x + shift for x, _, _ in points[1:-1]), end]
            dash = "" if group else ' stroke-dasharray="4 3"'
            mark = style.classes.get(group, "fixed")
            for k, ((_, top, bottom), (_, below, _)) in enumerate(itertools.pairwise(points)):
                first = bottom
                path = _curve(xs[k], first, xs[k + 1], below)
                if k:  # through the row of a waypoint
                    path = f"M{xs[k]:.1f} {top:.1f}V{bottom:.1f}" + path[path.index("C") :]
                if (group, path) not in drawn:
                    drawn.add((group, path))
                    yield (
                        f'<path class="flow {mark}" d="{path}" fill="none" '
                        f'stroke="{style.stroke(group)}" stroke-width="2"{dash}/>'
                    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (y + to_y) / 2
    return f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"


def _ports(node: Node, x: float) -> tuple[dict[str, float], dict[str, float]]:
    """Where on the upper and lower edge of a box each group's line ends."""
    if node.kind == "join":
        return {}, {}
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for ports, segments in zip(found, (node.into, node.out), strict=True):
        for (group, _), left, width in _spread(segments, x - BOX_WIDTH / 2):
            ports.setdefault(group, left + width / 2)
        if len(segments) > _MOST_SEGMENTS:
            for group, _ in segments:
                ports.setdefault(group, x + BOX_WIDTH / 2 - 14)
    return found


def _spread(segments: Sequence[Segment], left: float) -> Iterator[tuple[Segment, float, float]]:
    """The segments that are shown side by side, with left edge and width."""
    shown = segments[:_MOST_SEGMENTS]
    room = BOX_WIDTH - (28 if len(segments) > len(shown) else 0)
    for k, segment in enumerate(shown):
        yield segment, left + k * room / len(shown), room / len(shown)


def _draw_box(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    left = x - BOX_WIDTH / 2
    groups = dict.fromkeys(style.classes[g] for g, _ in (*node.into, *node.out) if g)
    name = in_html(node.name)
    yield f'<g class="{" ".join([node.kind, *groups])}" data-layer="{name}">'
    told = [_tooltip(node), *style.facts.get(node.name, ())]
    yield f"<title>{in_html(chr(10).join(told))}</title>"
    dash = ' stroke-dasharray="5 3"' if node.kind == "table" else ""
    yield (
        f'<rect class="box" x="{left:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        f'rx="5" fill="#fbfbfb" stroke="{_INK}" stroke-width="1"{dash}/>'
    )
    for segments, top in ((node.into, y), (node.out, y + BOX_HEIGHT - STRIP)):
        yield from _draw_strip(segments, left, top, style)
    most = int(BOX_WIDTH / _NAME_CHARACTER)
    yield _text(x, y + STRIP + 16, tail(node.name, most), size=12, weight="bold")
    yield _text(x, y + STRIP + 32, "   ".join(node.text), size=11, color=_MUTED)
    yield "</g>"


def _draw_strip(
    segments: Sequence[Segment], left: float, top: float, style: _Style
) -> Iterator[str]:
    """One edge of a box: every group with its name and width."""
    for (group, size), start, width in _spread(segments, left):
        mark = style.classes.get(group, "fixed")
        yield (
            f'<rect class="edge {mark}" x="{start + 1:.1f}" y="{top + 1:.1f}" '
            f'width="{width - 2:.1f}" height="{STRIP - 2}" rx="3" fill="{style.fill(group)}"/>'
        )
        room = int((width - 6) / _STRIP_CHARACTER) - len(f" {size}")
        label = f"{tail(group, room)} {size}".strip() if room > 2 else str(size)
        middle = start + width / 2
        yield _text(middle, top + 13, label, size=11, color=style.ink(group))
    if len(segments) > _MOST_SEGMENTS:
        more = f"+{len(segments) - _MOST_SEGMENTS}"
        yield _text(left + BOX_WIDTH - 14, top + 13, more, size=11)


def _draw_join(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    color = style.stroke(node.out[0][0] if node.out else "") if len(node.out) < 2 else _INK
    marks = " ".join(["join", *(style.classes[g] for g, _ in node.out)])
    radius = JOIN_SIZE / 2
    yield f'<g class="{marks}"><title>{in_html(_tooltip(node))}</title>'
    yield (
        f'<circle cx="{x:.1f}" cy="{y + radius:.1f}" r="{radius - 1}" fill="#ffffff" '
        f'stroke="{color}" stroke-width="2"/>'
    )
    yield _text(x, y + radius + 4.5, node.name, size=13) + "</g>"


def _draw_input(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    del style
    yield f'<g class="input"><title>{in_html(_tooltip(node))}</title>'
    yield (
        f'<rect x="{x - BOX_WIDTH / 2:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" '
        f'height="{PILL_HEIGHT}" rx="12" fill="url(#fixed)" stroke="{_LINE}"/>'
    )
    yield _text(x, y + 16, " ".join([node.name, *node.text]), size=11) + "</g>"


def _tooltip(node: Node) -> str:
    def listed(segments: Sequence[Segment]) -> str:
        return ", ".join(f"{group or 'fixed'} {width}" for group, width in segments) or "nothing"

    if node.kind == "join":
        return f"{', '.join(node.text)}: {listed(node.out)}"
    lines = [f"{node.name}: {'  '.join(node.text)}"]
    if node.into:
        lines.append(f"in: {listed(node.into)}")
    if node.out:
        lines.append(f"out: {listed(node.out)}")
    return "\n".join(lines)


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    color: str = _INK,
    anchor: str = "middle",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="{anchor}" xml:space="preserve">{in_html(words)}</text>'
    )


_DEFS = (
    '<defs><pattern id="fixed" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#eeeeee"/>'
    '<line x1="0" y1="0" x2="0" y2="6" stroke="#cccccc" stroke-width="3"/></pattern></defs>'
)

# In the dark light and dark change places, and hues stay.
_DARKENED = "@media (prefers-color-scheme: dark) { svg { filter: invert(1) hue-rotate(180deg); } }"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ margin: 0; display: flex; height: 100vh; font: 13px Helvetica, Arial, sans-serif; }}
nav {{ width: 300px; flex: none; overflow: auto; border-right: 1px solid #8888; padding: 12px; }}
main {{ flex: auto; overflow: auto; }}
@media (max-width: 700px) {{
  body {{ flex-direction: column; }}
  nav {{ width: auto; max-height: 40vh; border: 0; border-bottom: 1px solid #8888; }}
}}
@media (prefers-color-scheme: dark) {{
  body {{ background: #000; color: #ddd; }}
  li i {{ filter: invert(1) hue-rotate(180deg); }}
}}
ul {{ list-style: none; padding: 0; }}
li {{ padding: 3px; cursor: pointer; }}
li i {{ display: inline-block; width: 14px; height: 10px; margin-right: 6px; border-radius: 2px; }}
.dim .flow, .dim g, .dim li {{ opacity: 0.13; }}
.dim .on, .dim .on * {{ opacity: 1; }}
</style>
</head>
<body>
<nav aria-label="Channel groups">
<h3>{groups}</h3>
<p>Point at a group, or at an edge of a box, to see where it goes; click to keep it.</p>
<ul>
{items}
</ul>
</nav>
<main>
{svg}</main>
<script>{script}</script>
</body>
</html>
"""

_SCRIPT = """
let kept = null;
function show(group) {
  document.body.classList.toggle("dim", group !== null);
  document.querySelectorAll(".on").forEach(e => e.classList.remove("on"));
  if (group) document.querySelectorAll("." + group).forEach(e => e.classList.add("on"));
}
const own = e => (e.target.closest("li, .edge, .flow")?.getAttribute("class") ?? "")
  .split(" ").find(c => /^g[0-9]+$/.test(c)) ?? null;
document.addEventListener("mouseover", e => show(own(e) ?? kept));
document.addEventListener("click", e => { kept = own(e) === kept ? null : own(e); show(kept); });
"""
# Nothing is fetched, and no script runs but the one above.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'"
)
