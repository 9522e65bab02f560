"""Prints what makes a shell complete commands, flags and their values.

    morph completion bash >> ~/.bashrc
    morph completion zsh > ~/.zfunc/_morph

In zsh, ~/.zfunc has to be in $fpath. Print it again after an update of Morph.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.vocabulary import SHELLS
from morph.errors import ConfigError


def define(own: flags.FlagValues) -> None:
    """It has no flags of its own."""


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises unless one shell is named."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise ConfigError(
            f"name one shell of {', '.join(SHELLS)}: found {' '.join(words) or 'nothing'}"
        )


COMMAND = Command(
    name="completion",
    help=__doc__,
    declare=define,
    common=(),
    words="SHELL",
    check=check,
)
