"""What a name on a command line or in a setting stands for: an attribute of somebody's module."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from morph.errors import ImportedError, need
from regularizers.messages import cause, near

OURS = ("regularizers", "morph", "experiments")
FORM = "package.module:attribute or path/file.py:attribute"


def is_path(name: str) -> bool:
    """Whether a name is one of an attribute, and not of a table here.

    Example:
        >>> is_path("losses.py:focal"), is_path("cross_entropy")
        (True, False)
    """
    return ":" in name


def find_attribute(target: str, flag: str = "model") -> Any:
    """The object that `package.module:attribute` or `path/file.py:attribute` names.

    The module is imported: its code runs. Modules are looked for in the current directory, too.

    Args:
        target: the name.
        flag: that it was given for, for messages.

    Raises:
        ImportedError: if there is no such module, file or attribute, or importing it fails.
    """
    place, _, attribute = target.rpartition(":")
    if not place or not attribute:
        raise ImportedError(f"--{flag}={target} names no attribute; write {FORM}")
    what = f"--{flag}={target}"
    module = _file(what, Path(place)) if place.endswith(".py") else _module(what, place)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ImportedError(
            f"{what}: {module.__name__} has no {attribute!r}{near(attribute, names)}"
        ) from error


def extra(module: str, what: str, name: str) -> Any:
    """A module of a package that only an extra installs, loaded when it is asked for.

    Args:
        module: its full name.
        what: that needs it, for the message.
        name: of the extra.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        return need(what, error, name)


def _module(what: str, name: str) -> ModuleType:
    _visible(Path.cwd())
    try:
        return importlib.import_module(name)
    except Exception as error:  # the user's module may raise anything while it is imported
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            file = Path(*name.split(".")).with_suffix(".py")
            hint = "run this where `import` would find it"
            if file.is_file() and name.split(".")[0] in OURS:
                hint = (
                    f"{name.split('.')[0]} is a package of Morph's here: name the file, {file}:..."
                )
            raise ImportedError(
                f"{what}: no module {missing!r}, neither in the current directory nor installed; "
                f"{hint}"
            ) from error
        raise ImportedError(f"{what}: importing {name} fails with {cause(error)}") from error


def _file(what: str, path: Path) -> ModuleType:
    """A file as a module, imported once; what lies beside it can be imported from there."""
    if not path.is_file():
        beside = [own.name for own in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ImportedError(f"{what}: there is no file {path}{near(path.name, beside)}")
    path = path.resolve()
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path) and module.__name__ != "__main__":
            return module
    _visible(path.parent)
    name = path.stem if path.stem not in sys.modules else f"_morph_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # of a .py file there is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ImportedError(f"{what}: importing {path} fails with {cause(error)}") from error
    return module


def _visible(directory: Path) -> None:
    """Lets modules in a directory be imported, after those of our own packages."""
    if (here := os.fspath(directory)) not in sys.path:
        sys.path.insert(0, here)
