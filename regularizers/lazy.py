"""Names of a package that load when they are first used (PEP 562).

A package says once what it offers, where type checkers read it, too:

    if TYPE_CHECKING:
        from package.heavy import Name
    else:
        __getattr__, __dir__ = lazy(__name__)

So `import package` is quick, and `package.Name` imports `package.heavy`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, by its imports under `if TYPE_CHECKING`.

    No name may be that of a module in the package: importing the module would put it there.
    """
    module = sys.modules[package]
    homes = homes_of(Path(str(module.__file__)).read_text(encoding="utf-8"))

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=module
            )
        value = getattr(__import__(homes[name], fromlist=[name]), name)  # as `from ... import` does
        setattr(module, name, value)  # found without us from now on
        return value

    return load, lambda: sorted({*vars(module), *homes})


def homes_of(source: str) -> dict[str, str]:
    """The module of every name that is imported under `if TYPE_CHECKING`."""
    return {
        alias.name: str(imported.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for imported in block.body
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }
