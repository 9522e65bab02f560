"""A command before it is loaded: its flags and its help, which need no JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import flags

from experiments.console.flags import read_flags
from experiments.console.help import full_help, short_help
from morph.errors import ConfigError


def nothing(options: flags.FlagValues, words: Sequence[str]) -> None:
    """The check of a command that has none."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is known of a command before it is loaded.

    Attributes:
        name: as it is typed after `morph`.
        help: what it does, with an example; the docstring of its declaration.
        declare: defines its flags.
        common: the flags that most runs need, in order: those of `--help`.
        words: what it takes besides flags; empty for nothing.
        check: raises a MorphError for what can be seen to be wrong without any work.
    """

    name: str
    help: str
    declare: Callable[[flags.FlagValues], None]
    common: Sequence[str]
    words: str = ""
    check: Callable[[flags.FlagValues, Sequence[str]], None] = nothing

    def define(self) -> flags.FlagValues:
        """Its flags, with their defaults; they share names, and no values, with other commands."""
        own = flags.FlagValues()
        self.declare(own)
        flags.DEFINE_bool(
            "help",
            False,
            "Show the flags that are needed most.",
            short_name="?",
            flag_values=own,
        )
        flags.DEFINE_bool("helpfull", False, "Show all flags.", flag_values=own)
        return own

    def read(self, argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
        """The flags and the other words of a command line, checked unless help is asked for.

        Raises:
            flags.Error: naming a flag that is not known, or its value.
            MorphError: likewise.
        """
        options = self.define()
        argv = ["--help" if word == "-h" else word for word in argv]
        words = read_flags(options, argv)[1:]
        if not (options.help or options.helpfull):
            if words and not self.words:
                raise ConfigError(f"unexpected arguments: {' '.join(words)}; flags start with --")
            self.check(options, words)
        return options, words

    def told(self, options: flags.FlagValues) -> str:
        """The help that flags ask for; empty for none."""
        if options.helpfull:
            return "\n".join(full_help(self.help, options))
        if options.help:
            return "\n".join(short_help(self.name, self.help, options, self.common))
        return ""
