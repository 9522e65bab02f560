"""The addresses outside of the repository that its pages name: a list, and a check where online.

    python docs/addresses.py           # lists them; docs/addresses.txt is this
    python docs/addresses.py --ask     # asks each; exit status 1 if one is gone

A test compares the list with the pages, so that no address gets in unseen; asking needs a network,
which CI may lack.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "CITATION.cff", "docs/**/*.md", "docs/**/*.ipynb", "examples/*.py")
ADDRESS = re.compile(r"https?://[^\s)>\"'`\\]+")
_GONE = (404, 410)


def addresses() -> Iterator[tuple[str, Path]]:
    """Every address, with a page that names it."""
    for pattern in PAGES:
        for page in sorted(ROOT.glob(pattern)):
            for found in ADDRESS.findall(page.read_text(encoding="utf-8")):
                yield found.rstrip(".,;:"), page


def is_gone(address: str) -> bool:
    """Whether a server says that there is no such page; one that cannot be reached says nothing."""
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            return False
    except urllib.error.HTTPError as error:
        return error.code in _GONE
    except OSError:
        return False


if __name__ == "__main__":
    known = dict(addresses())
    if "--ask" in sys.argv[1:]:
        lost = [(address, page) for address, page in known.items() if is_gone(address)]
        gone = [f"{address}, in {page.relative_to(ROOT)}" for address, page in lost]
        print("\n".join(gone) or f"none of {len(known)} addresses is gone")
        sys.exit(bool(gone))
    print("\n".join(sorted(known)))
