"""For MkDocs: a link to a file of the repository that is no page becomes the file's name."""

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[(`?)([^\]`]+)`?\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **rest: Any) -> str:
    """Replaces such links in a page; what is told of them stays."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[3]))
        if not target.startswith("../"):
            return found[0]
        text, path = found[2], target.removeprefix("../")
        return f"`{path}`" if path.endswith(text.strip("/")) else f"{text} (`{path}`)"

    return LINK.sub(named, markdown)
