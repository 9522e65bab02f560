"""Settings said once: a default, what it means, and what it may be, in one declaration.

A class of settings is a frozen dataclass whose fields are made by `setting`. All else comes from
there: its docstring, its checks, the flags of the commands and the table in the docs.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

from morph.errors import ConfigError
from morph.imports import is_path
from regularizers.messages import near

T = TypeVar("T")

# By the words of a field's annotation.
_TYPES: Mapping[str, type] = {
    "bool": bool,
    "int": Integral,
    "float": Real,
    "str": str,
    "None": type(None),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers from one end to another.

    Attributes:
        text: in mathematical notation: `[0, 1)`, `(0, inf)`.
    """

    text: str

    @property
    def ends(self) -> tuple[float, float]:
        """Both, whether they belong to it or not."""
        least, most = self.text[1:-1].split(",")
        return float(least), float(most)

    @property
    def closed(self) -> tuple[bool, bool]:
        """Whether each end belongs to it."""
        return self.text[0] == "[", self.text[-1] == "]"

    def __contains__(self, value: float) -> bool:
        (least, most), (at_least, at_most) = self.ends, self.closed
        return least < value < most or (at_least and value == least) or (at_most and value == most)

    def __str__(self) -> str:
        least, most = self.ends
        if most < float("inf"):
            return f"in {self.text}"
        return f"{'at least' if self.closed[0] else 'above'} {least:g}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of a field of settings.

    Attributes:
        name: of the field.
        type: its annotation.
        default: its value where nothing is said.
        help: what it means, in a sentence.
        choices: the names that it may be; empty for any.
        each: likewise, for each of the names in it, which are separated by commas.
        range: the numbers that it may be; None for any.
        imported: it may be the path of an attribute of somebody's module, too.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: Collection[str]
    each: Collection[str]
    range: Range | None
    imported: bool

    def check_type(self, value: Any) -> None:
        """Raises if a value is of another type, or is not a number.

        Raises:
            ConfigError: naming the setting, its type and what was found.
        """
        words = self.type.split(" | ")
        fits = isinstance(value, tuple(_TYPES[word] for word in words))
        if not fits or (isinstance(value, bool) and "bool" not in words) or value != value:
            raise ConfigError(f"{self.name} must be {' or '.join(words)}, found {value!r}")

    def check(self, value: Any) -> None:
        """Raises if a value of its type is not what it may be.

        Raises:
            ConfigError: naming the setting, what it is, and what it may be.
        """
        names = names_of(value) if self.each else [value] if self.choices else []
        known = self.each or self.choices
        for name in names:
            if name not in known and not (self.imported and is_path(name)):
                raise ConfigError(f"{self.name}: there is no {name!r}{near(name, known)}")
        if self.range is not None and value is not None and value not in self.range:
            raise ConfigError(f"{self.name} must be {self.range}, found {value}")


def setting(
    default: T,
    *,
    help: str,
    choices: Collection[str] = (),
    each: Collection[str] = (),
    range: str | None = None,
    imported: bool = False,
) -> T:
    """Declares a field of settings.

    Args:
        default: its value where nothing is said.
        help: what it means, in a sentence.
        choices: the names that it may be; empty for any.
        each: likewise, for each of the names in it, which are separated by commas.
        range: the numbers that it may be, such as `[0, 1)`; None for any. None is in every range.
        imported: it may be the path of an attribute of somebody's module, too.

    Returns:
        What stands in the class's body after the field's annotation.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Settings:
        ...     share: float = setting(0.5, help="Of all.", range="[0, 1)")
        >>> check_settings(Settings(share=1.5))
        Traceback (most recent call last):
        morph.errors.ConfigError: share must be in [0, 1), found 1.5
    """
    bounds = None if range is None else Range(text=range)
    told = {"help": help, "choices": choices, "each": each, "range": bounds, "imported": imported}
    return dataclasses.field(default=default, metadata=told)


def settings_of(cls: type) -> list[Setting]:
    """All that a class of settings declares, in its order."""
    return [
        Setting(
            name=field.name,
            type=str(field.type),
            default=field.default,
            help=field.metadata["help"],
            choices=field.metadata["choices"],
            each=field.metadata["each"],
            range=field.metadata["range"],
            imported=field.metadata["imported"],
        )
        for field in dataclasses.fields(cls)
    ]


def names_of(value: str) -> list[str]:
    """The names in a setting that holds several."""
    return [name.strip() for name in value.split(",") if name.strip()]


def check_settings(config: Any) -> None:
    """Raises if a setting is of another type than its field, or is not what it may be.

    Raises:
        ConfigError: naming the setting, what it is, and what it may be.
    """
    settings = settings_of(type(config))
    for one in settings:
        one.check_type(getattr(config, one.name))
    for one in settings:
        one.check(getattr(config, one.name))


def read_settings(
    cls: type[T], told: Any, renewed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> T:
    """Settings from what another version may have written: what it lacks is as by default.

    Args:
        cls: the class of settings.
        told: `{name: value}`, of a JSON file.
        renewed: gives what older versions wrote its present names.

    Raises:
        ConfigError: if it is something else, or has settings that this version does not know.
    """
    if not isinstance(told, Mapping):
        raise ConfigError(f"settings must be an object of names and values, found {told!r}")
    told, known = renewed(told), {one.name for one in settings_of(cls)}
    if unknown := sorted(set(told) - known):
        raise ConfigError(
            f"this version does not know the settings {', '.join(unknown)}; they are of a newer "
            "one: install that, or take them out of the file"
        )
    return cls(**told)


def documented(cls: type[T]) -> type[T]:
    """Completes the docstring of a class of settings by what its fields say."""
    lines = [
        textwrap.fill(
            f"{one.name}: {one.help}", 96, initial_indent=" " * 4, subsequent_indent=" " * 8
        )
        for one in settings_of(cls)
    ]
    cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *lines])
    return cls
