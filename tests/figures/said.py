"""What pages say of the files in `results/`.

A function of `@says` reads one file, or a constant of the packages, and yields the phrases that its
figures make, as they stand in the page.
"""

import json
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SAYS: dict[tuple[str, str], Callable[[Any], Iterator[str]]] = {}


def says(name: str, page: str = "results"):
    """Registers what `page` says of `results/NAME.json`, or of a constant, `module:name`."""
    return lambda phrases: SAYS.setdefault((name, page), phrases)


def raw(page: str) -> str:
    path = ROOT / ("README.md" if page == "README" else f"docs/{page}.md")
    return path.read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """Of a page, on one line."""
    return re.sub(r"\s+", " ", raw(page))


def bare(text: str) -> str:
    """Without code, addresses, numbers of articles and headings, on one line."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|^#.*$|arXiv:[\d.]+", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", text)


def read(name: str) -> Any:
    module, _, constant = name.partition(":")
    if constant:
        return getattr(import_module(module), constant)
    return json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8"))


def share(part: float, whole: float = 1.0, digits: int = 0) -> str:
    return f"{100 * part / whole:.{digits}f} %"


def each(values, form: str = "{:.1f}") -> str:
    """As in "59.4, 58.4 and 53.1"."""
    *first, last = map(form.format, values)
    return f"{', '.join(first)} and {last}"


def span(values, form: str = "{:.1f}") -> str:
    values = list(values)
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def by(rows, *keys: str) -> dict[Any, Any]:
    """Rows by what stands at these keys."""
    return {tuple(one[key] for key in keys) if keys[1:] else one[keys[0]]: one for one in rows}
