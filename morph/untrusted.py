"""Text that others wrote (names of layers, paths, messages) in terminals, pages and Markdown."""

from __future__ import annotations

import html
import re

# What moves a cursor, rings, reorders what is read, breaks lines unseen, or is half a character;
# of these XML and terminals bear only the tab and the end of a line.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~&])")


def printable(text: object) -> str:
    r"""The text with escapes for control characters.

    Example:
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


def in_html(text: object) -> str:
    """The text for HTML and SVG, also inside quotes.

    Example:
        >>> in_html("<b>")
        '&lt;b&gt;'
    """
    return html.escape(printable(text), quote=True)


def in_markdown(text: object) -> str:
    r"""The text for one line or cell of Markdown: nothing in it is a mark.

    Example:
        >>> in_markdown("a|b")
        'a\\|b'
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))
