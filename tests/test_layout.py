"""What a reader may count on in the folders of the three packages."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_LINES = 420
FILES = sorted(
    path
    for package in ("regularizers", "morph", "experiments")
    for path in (ROOT / package).rglob("*.py")
)


def test_a_file_can_be_read_in_one_go():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in FILES
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_every_module_of_morph_has_its_test_file():
    tests = ROOT / "tests" / "morph"
    modules = [
        path.relative_to(ROOT / "morph")
        for path in (ROOT / "morph").rglob("*.py")
        if not path.name.startswith("__")
    ]
    assert modules
    own = {path: tests / path.parent / f"test_{path.name}" for path in modules}
    assert [path.as_posix() for path, test in own.items() if not test.exists()] == []


def test_what_contributors_are_sent_to_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`([\w./]*/[\w./]*)`", text)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []
