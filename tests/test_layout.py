"""What a reader may count on in the folders of the three packages."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 420
FILES = sorted(
    path
    for package in ("regularizers", "morph", "experiments")
    for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
