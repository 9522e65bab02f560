"""Where an equation comes from: the lines of the user's that made it."""

from __future__ import annotations

import itertools
import os
import sysconfig
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from regularizers.primitives.jaxprs import frames_of


def source_line(source: Sequence[Any] | None) -> str:
    """The user's `file:line (function)`: the innermost frame in code of their own.

    A helper library's line (einops, numpy) says little. Where all code is installed, it is the
    innermost line of the package that the function came from, other than Flax. Files below the
    working directory are named from there.

    Args:
        source: the source infos of an equation and of the calls around it, the innermost first.
            JAX keeps no line of the user for what is inside its own jitted functions.
    """
    found = [frames for info in source or () if (frames := _frames(info))]
    for frames in found:
        for frame in frames:
            if not _is_installed(_file(frame)):
                return from_here(frame)
    for frames in found:
        packages = {frame: _package(_file(frame)) for frame in frames}
        own = {frame: package for frame, package in packages.items() if package.name != "flax"}
        *_, first = (own or packages).values()
        return next(frame for frame, package in packages.items() if package == first)
    return ""


def source_frames(source: Sequence[Any] | None) -> tuple[str, ...]:
    """All frames of the function that was traced, less those of JAX, the innermost first."""
    return tuple(dict.fromkeys(frame for info in source or () for frame in _frames(info)))


def from_here(path: str) -> str:
    """What begins with the path of a file, from the working directory on if it lies below it."""
    try:
        return path.removeprefix(os.path.join(os.getcwd(), ""))
    except OSError:  # the directory is gone
        return path


def _frames(info: Any) -> list[str]:
    """The frames inside of the function that was traced, the innermost first."""
    frames = frames_of(info)
    inside = itertools.takewhile(lambda frame: not _file(frame).is_relative_to(_HERE), frames)
    return [frame for frame in inside if not frame.startswith("<__array_function__")]


def _file(frame: str) -> PurePath:
    return PurePath(frame.rsplit(":", 2)[0])


def _is_installed(file: PurePath) -> bool:
    """Whether it is a library's, and so not the user's own."""
    return bool(_INSTALLED.intersection(file.parts)) or file.is_relative_to(_STANDARD_LIBRARY)


def _package(file: PurePath) -> PurePath:
    """The directory of the package that an installed file belongs to."""
    last = max((k for k, part in enumerate(file.parts) if part in _INSTALLED), default=-1)
    return PurePath(*file.parts[: last + 2])


_HERE = PurePath(__file__).parents[1]
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY = PurePath(sysconfig.get_paths()["stdlib"])
