"""The page of settings is what their declarations say."""

from pathlib import Path

from experiments.console.settings_page import settings_page
from morph.compress.config import CompressConfig
from morph.cycle.config import CycleConfig, Placement
from morph.settings import settings_of

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_is_as_made():
    remedy = "python -m experiments.console.settings_page > docs/settings.md"
    assert PAGE.read_text(encoding="utf-8") == settings_page(), remedy


def test_every_setting_has_one_row():
    rows = [line.split(" | ") for line in settings_page().splitlines() if line.startswith("| `")]
    declared = [one for c in (CycleConfig, Placement, CompressConfig) for one in settings_of(c)]
    assert [row[0].strip("|` ") for row in rows] == [one.name for one in declared]
    assert rows[0][4] == "targets |"  # refuses --target
