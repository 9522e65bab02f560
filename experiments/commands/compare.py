"""Runs side by side: their settings, their results, and every width.

    morph compare runs/a runs/b runs/c --output=compare.html --output=compare.png

prints the settings that differ, the results, and the widths of every group. Runs that differ only
in their random seed are shown as one, with mean and standard deviation. --output writes a page that
opens offline (.html), or a plot of accuracy against cost (.png, .svg, .pdf). Sweeps are included
with all their points, and unfinished runs with what they have so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import check_output
from morph.errors import ConfigError

PAGES, PICTURES = (".html",), (".png", ".svg", ".pdf")


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    endings = ", ".join((*PAGES, *PICTURES))
    flags.DEFINE_multi_string("output", [], f"Also write this file: {endings}.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises if there is nothing to compare, or an output cannot be written."""
    for path in options.output:
        if not path.endswith((*PAGES, *PICTURES)):
            listed = ", ".join((*PAGES, *PICTURES))
            raise ConfigError(f"--output={path}: its ending must be one of {listed}")
        check_output("output", path)
    if not words:
        raise ConfigError("nothing to compare; name the working directories of runs")


COMMAND = Command(
    name="compare",
    help=__doc__,
    declare=define,
    common=("output",),
    words="WORKDIR...",
    check=check,
)
