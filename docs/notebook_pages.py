"""For MkDocs: every notebook becomes a page of its name, with what its code printed."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from notebooks import markdown


def on_files(files: Any, config: Any) -> Any:
    """Replaces the notebooks among the files."""
    for file in [one for one in files if one.src_uri.endswith(".ipynb")]:
        text = Path(file.abs_src_path).read_text(encoding="utf-8")
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.remove(file)
        files.append(File.generated(config, page, content=markdown(json.loads(text))))
    return files


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Links to notebooks lead to their pages."""
    return re.sub(r"\]\(([^):]+)\.ipynb\)", r"](\1.md)", markdown)
