"""The flags of settings: one for every field, with its default, help, choices and least value."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from experiments.vocabulary import DATASETS, SEED_NETWORKS
from morph.compress.config import CompressConfig
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError
from morph.imports import FORM, is_path
from morph.settings import settings_of

T = TypeVar("T")
_WIDTHS = (0.01, 100.0)
# Flags of versions before, and what to say now.
_RETIRED = {
    "expand_budget": "--budget is what the network costs that a run ends with, and --shrink_to, "
    "if given, what it is shrunk to before it is widened back to that: for --budget=A "
    "--expand_budget=B say --budget=B --shrink_to=A, for --expand_budget=none nothing",
    "baseline": "--baselines=whole,uniform names what is trained besides",
}


class Amount(flags.ArgumentParser):
    """A ratio, or what `parse_budget` reads."""

    def parse(self, argument: Any) -> float | str | None:
        """A number where it is one; None for `none`."""
        try:
            return float(argument)
        except ValueError:
            return None if argument.lower() == "none" else str(argument)

    def flag_type(self) -> str:
        """What the help calls it."""
        return "amount"


class NameOrPath(flags.EnumParser):
    """One of some names, or the path of an attribute of somebody's module."""

    def parse(self, argument: Any) -> str:
        """The name or the path as it stands."""
        return str(argument) if is_path(argument) else str(super().parse(argument))


def _amount(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE(Amount(), name, default, text, flag_values)


# By the annotation of a field.
_DEFINE: Mapping[str, Callable[..., Any]] = {
    "bool": flags.DEFINE_bool,
    "int": flags.DEFINE_integer,
    "int | None": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "float | None": flags.DEFINE_float,
    "float | str": _amount,
    "float | str | None": _amount,
    "str": flags.DEFINE_string,
}


def define_settings(
    flag_values: flags.FlagValues,
    cls: type = CycleConfig,
    *,
    only: Collection[str] | None = None,
    **defaults: Any,
) -> None:
    """Defines a flag for every field of a class of settings.

    Args:
        flag_values: where.
        cls: the class.
        only: the names of the fields that have a flag; all of them if None.
        defaults: in place of those of its fields.
    """
    for one in settings_of(cls):
        if only is not None and one.name not in only:
            continue
        default = defaults.get(one.name, one.default)
        if one.imported and one.choices:
            flags.DEFINE(NameOrPath(one.choices), one.name, default, one.help, flag_values)
            continue
        if one.choices:
            known = list(one.choices)
            flags.DEFINE_enum(one.name, default, known, one.help, flag_values=flag_values)
            continue
        least = {}
        if one.range is not None and one.range.closed[0]:
            least = {"lower_bound": one.range.ends[0]}
        _DEFINE[one.type](one.name, default, one.help, flag_values=flag_values, **least)


def settings_from(cls: type[T], flag_values: flags.FlagValues) -> T:
    """The settings that flags ask for."""
    return cls(**{one.name: flag_values[one.name].value for one in settings_of(cls)})


def config_of(flag_values: flags.FlagValues) -> CycleConfig:
    """The configuration that flags ask for."""
    return settings_from(CycleConfig, flag_values)


def define_width(flag_values: flags.FlagValues, default: float | None) -> None:
    """Defines the flag of the seed network's width."""
    flags.DEFINE_float(
        "width",
        default,
        "Uniform width multiplier of the seed network.",
        *_WIDTHS,
        flag_values=flag_values,
    )


# What is trained, on what and for what: the flags that commands show first.
SUBJECT = ("seed_network", "dataset", "model", "data", "loss", "metrics", "start")


def check_workdir(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises a ConfigError if no run is named."""
    if not options.workdir:
        raise ConfigError("--workdir is missing; name the directory of a run")


def define_subject_flags(
    own: flags.FlagValues,
    *,
    seed_network: str | None = None,
    dataset: str | None = None,
    width: float | None = None,
) -> None:
    """The flags that name a seed network and its data.

    Args:
        own: where.
        seed_network: the default; None where a report names it.
        dataset: likewise.
        width: likewise.
    """
    flags.DEFINE_enum(
        "seed_network",
        seed_network,
        SEED_NETWORKS,
        "The seed network, by its name in the registry.",
        flag_values=own,
    )
    flags.DEFINE_string("model", None, f"A seed network of your own: {FORM}.", flag_values=own)
    flags.DEFINE_string(
        "train_kwarg",
        "train",
        "The argument of --model that says whether it trains.",
        flag_values=own,
    )
    define_width(own, width)
    flags.DEFINE_enum(
        "dataset",
        dataset,
        DATASETS,
        "What to train on; digits needs no download.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "data",
        None,
        f"Data of your own: {FORM}, a function that returns (train, test).",
        flag_values=own,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "The directory in which the data set's files are looked for first.",
        flag_values=own,
    )


def define_start(own: flags.FlagValues) -> None:
    """The flag of given weights."""
    flags.DEFINE_string(
        "start",
        None,
        "Trained weights of the seed: an Orbax directory, a safetensors file, or "
        "package.module:function. The seed is then measured, and not trained.",
        flag_values=own,
    )


def define_task_flags(own: flags.FlagValues) -> None:
    """The flags of what a network is for, where a report names code to run."""
    for name, what in {"loss": "minimised", "metrics": "measured"}.items():
        flags.DEFINE_string(
            name, None, f"What is {what}; by default as the network was learned.", flag_values=own
        )


def define_compression(flag_values: flags.FlagValues, *, compress: str | None) -> None:
    """Defines a flag for every field of `CompressConfig`.

    Args:
        flag_values: where.
        compress: the default of `--compress`; None for no compression.
    """
    define_settings(flag_values, CompressConfig, compress=compress)


def read_flags(flag_values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Takes the flags of a command line.

    Args:
        flag_values: that are known.
        argv: the command line; its first word is the program's name.

    Returns:
        The other words, the program's name first.

    Raises:
        flags.Error: naming a flag that is not known, or its value.
        ConfigError: likewise, of a value that no flag can have; or if a file of flags is none.
    """
    try:
        rest = list(flag_values(list(argv)))
    except flags.UnrecognizedFlagError as error:
        if error.flagname not in _RETIRED:
            raise
        raise ConfigError(
            f"there is no --{error.flagname} any more: {_RETIRED[error.flagname]}"
        ) from None
    except ValueError as error:  # a name with a NUL, or bytes that are no text
        raise ConfigError(
            f"--flagfile must name a text file with one flag a line: {error}"
        ) from None
    for name in flag_values:
        value = flag_values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{name} must be a finite number, found {value}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\0" in text:
                raise ConfigError(f"--{name}: {text!r} holds a NUL, which no name can")
    return rest


def check_output(flag: str, path: str | Path) -> None:
    """Raises before any work is done unless a file can be written.

    Raises:
        ConfigError: naming the flag, and what is in the way.
    """
    place = Path(path)
    if place.is_dir():
        raise ConfigError(f"--{flag}={path} is a directory; name a file")
    if not place.parent.is_dir():
        raise ConfigError(f"--{flag}={path}: there is no directory {str(place.parent)!r}")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise ConfigError(f"--{flag}={path} cannot be written: permission denied")
