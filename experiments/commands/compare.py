"""Runs side by side: what was asked, what came out, and every width.

    morph compare runs/a runs/b runs/c --output=compare.html --output=compare.png

prints what differs in the configurations, the outcomes, and the widths of every group; runs of one
configuration with different random seeds count as one, with mean and standard deviation. With
--output the same is written as a page that opens offline (.html), or as a plot of accuracy against
cost (.png, .svg, .pdf). Sweeps take part with all their points. Runs that are not finished are
shown as far as they came.
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
    flags.DEFINE_multi_string("output", [], f"Write this file, too: {endings}.", flag_values=own)


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
