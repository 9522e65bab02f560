"""The page of all settings, made from their declarations.

python -m experiments.console.settings_page > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Mapping

from morph.compress.config import CompressConfig
from morph.cycle.config import CycleConfig, Placement
from morph.cycle.unused import UNUSED_BY_RETRAIN, UNUSED_BY_SWEEP, UNUSED_BY_TARGETS
from morph.settings import Setting, settings_of

_UNUSED: Mapping[str, Mapping[str, str]] = {
    "sweep": UNUSED_BY_SWEEP,
    "targets": UNUSED_BY_TARGETS,
    "retrain": UNUSED_BY_RETRAIN,
}
_HEAD = """\
# Settings

Made by `python -m experiments.console.settings_page` from the declarations in
`morph/cycle/config.py` and `morph/compress/config.py`; change those, not this page. Every setting
is a field of the class and a flag of the same name. Where a file that an older version wrote lacks
a setting, its default is used. [Training](training.md) and [Quantization](quantization.md) explain
the terms.
"""
_CYCLE = """
## How to learn a structure: `morph.CycleConfig`

`morph run` takes all of them; the last column names the commands that refuse a setting because
they have no use for it.
"""
_PLACEMENT = """
## Where a run runs: `morph.cycle.config.Placement`

Of `experiments.run`; arguments of `morph.Cycle`. A run may be resumed on another mesh, see
[Clusters](clusters.md).
"""
_COMPRESS = """
## How to compress: `morph.compress.CompressConfig`

`morph compress` takes these settings, and so does `morph run` with `--compress`.
"""


def settings_page() -> str:
    """The page, in Markdown."""
    refused = {
        one.name: ", ".join(name for name, unused in _UNUSED.items() if one.name in unused)
        for one in settings_of(CycleConfig)
    }
    cycle = _table(
        ["setting", "default", "what it is", "may be", "refused by"],
        [[*_cells(one), refused[one.name]] for one in settings_of(CycleConfig)],
    )
    compress = _table(
        ["setting", "default", "what it is", "may be"],
        [_cells(one) for one in settings_of(CompressConfig)],
    )
    placement = _table(
        ["setting", "default", "what it is", "may be"],
        [_cells(one) for one in settings_of(Placement)],
    )
    return "\n".join([_HEAD + _CYCLE, cycle + _PLACEMENT, placement + _COMPRESS, compress])


def _cells(one: Setting) -> list[str]:
    default = "empty" if one.default == "" else f"`{one.default}`"
    return [f"`{one.name}`", default, one.help.replace("*", r"\*"), _may_be(one)]


def _may_be(one: Setting) -> str:
    own = ", or `package.module:attribute`" if one.imported else ""
    if one.choices:
        return ", ".join(f"`{name}`" for name in one.choices) + own
    if one.each:
        return "some of " + ", ".join(f"`{name}`" for name in one.each) + own
    kind = one.type.replace(" | ", " or ")
    return kind if one.range is None else f"{kind}, {one.range}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(settings_page(), end="")
