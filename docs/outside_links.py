"""For MkDocs: a link to a file of the repository that is no page becomes the file's name."""

import re
from typing import Any

LINK = re.compile(r"\[(`?)([^\]`]+)`?\]\(\.\./([^)#]+)\)")


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Replaces such links in a page; what is told of them stays."""

    def named(found: re.Match[str]) -> str:
        text, path = found[2], found[3].rstrip("/")
        return f"`{path}`" if path.endswith(text.strip("/")) else f"{text} (`{path}`)"

    return LINK.sub(named, markdown)
