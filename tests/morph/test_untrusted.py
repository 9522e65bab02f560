import html
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morph.untrusted import in_html, in_markdown, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\rb\x07\x7f\x9b", r"a\rb\x07\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800 \u2028", r"\ud800 \u2028"),
        ("two\nlines\tand a tab, é, 宽, \N{GRINNING FACE}", None),
    ],
)
def test_what_is_no_text_is_shown_as_an_escape(text, shown):
    assert printable(text) == (shown or text)


@given(st.text())
def test_html_is_the_text_again_and_xml_can_be_read(text):
    shown = in_html(text)
    assert html.unescape(shown) == printable(text)
    assert not set(shown) & set("<>\"'")
    read = ET.fromstring(f'<a b="{shown}">{shown}</a>').text or ""
    assert read == printable(text)


@given(st.text())
def test_nothing_in_markdown_is_a_mark(text):
    shown = in_markdown(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>#|~&]", shown)


def test_markdown_by_hand():
    assert in_markdown("a|b\n# <script> [x](y)") == r"a\|b \# \<script\> \[x\](y)"
