"""The flags of settings: one for every field, with its default, help, choices and least value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from absl import flags

from morph.cycle.config import CycleConfig
from morph.imports import is_path
from morph.settings import settings_of

T = TypeVar("T")


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
    "float | str": _amount,
    "float | str | None": _amount,
    "str": flags.DEFINE_string,
}


def define_settings(
    flag_values: flags.FlagValues = flags.FLAGS, cls: type = CycleConfig, **defaults: Any
) -> None:
    """Defines a flag for every field of a class of settings.

    Args:
        flag_values: where.
        cls: the class.
        defaults: in place of those of its fields.
    """
    for one in settings_of(cls):
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


def config_of(flag_values: flags.FlagValues = flags.FLAGS) -> CycleConfig:
    """The configuration that flags ask for."""
    return settings_from(CycleConfig, flag_values)
