"""jaxtyping's annotations of `regularizers` and `morph` are checked while tests run.

Import this first: a module that was imported before stays unchecked.
"""

import re
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent.parent
ANNOTATED = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("regularizers", "morph")
    for path in (ROOT / package).rglob("*.py")
    if "from jaxtyping import" in path.read_text("utf-8")
)

SHAPED = re.compile(r"\b(Bool|Float|Inexact|Int|Integer|Key|Num|Real|Shaped|UInt|UInt8|UInt16)\[")
BEARTYPE: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def check(fn: Any) -> Any:
    """Checks annotations of arrays; mypy sees to all others, and to protocols."""
    shaped = {name: hint for name, hint in fn.__annotations__.items() if SHAPED.search(str(hint))}
    if not shaped:
        return fn
    fn.__annotations__ = shaped
    return BEARTYPE(fn)


HOOK = install_import_hook(ANNOTATED, f"{__name__}.check")
