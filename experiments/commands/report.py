"""Writes report.html into the working directories of runs, sweeps and retrainings.

    morph report runs/digits-resnet8

The report of an unfinished run shows what it has so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from morph.errors import ConfigError


def define(own: flags.FlagValues) -> None:
    """It has no flags of its own."""


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises if no run is named."""
    if not words:
        raise ConfigError("name working directories: found nothing; --help tells more")


COMMAND = Command(
    name="report",
    help=__doc__,
    declare=define,
    common=(),
    words="WORKDIR...",
    check=check,
)
