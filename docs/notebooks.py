"""Notebooks without a kernel: their code runs here, what it printed is stored beside it.

python docs/notebooks.py docs/notebooks/*.ipynb      # runs them, and stores what they print
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path) -> dict[str, Any]:
    """Runs all code cells of a notebook, in order, in one namespace.

    Args:
        path: of the notebook.

    Returns:
        The notebook, with what each cell printed in place of what was stored.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"__name__": path.stem}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        printed = io.StringIO()
        tree = ast.parse("".join(cell["source"]))
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"{path.name}, code cell {count}", "exec"), namespace)
        lines = printed.getvalue().splitlines(keepends=True)
        stored = {"name": "stdout", "output_type": "stream", "text": lines}
        cell |= {"execution_count": count, "outputs": [stored] if lines else []}
    return notebook


def markdown(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its text, its code, and what that printed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        place = Path(name)
        done = run(place)
        place.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
