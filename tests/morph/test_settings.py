"""One declaration: the docstring, the checks, and what another version wrote."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from morph.compress.config import CompressConfig
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError
from morph.settings import Range, check_settings, documented, read_settings, setting, settings_of


@documented
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of a test."""

    share: float = setting(0.5, help="Of all.", range="[0, 1)")
    part: float = setting(0.5, help="Of it.", range="[0, 1]")
    heat: float = setting(2.0, help="Softens.", range="(0, inf)")
    steps: int | None = setting(None, help="How many.", range="[1, inf)")
    kind: str = setting("tt", help="What it is.", choices=("tt", "tucker"))
    kinds: str = setting("tt", help="What they are.", each=("tt", "tucker"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.0}, r"share must be in \[0, 1\), found 1.0"),
        ({"share": -0.1}, r"share must be in \[0, 1\), found -0.1"),
        ({"part": 1.1}, r"part must be in \[0, 1\], found 1.1"),
        ({"heat": 0.0}, "heat must be above 0, found 0.0"),
        ({"steps": 0}, "steps must be at least 1, found 0"),
        ({"steps": "1"}, "steps must be int or None, found '1'"),
        ({"kind": "tukker"}, "kind: there is no 'tukker'; did you mean 'tucker'"),
        ({"kind": "tt,tucker"}, "kind: there is no 'tt,tucker'"),
        ({"kinds": "tt,tukker"}, "kinds: there is no 'tukker'; did you mean 'tucker'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(Settings(**changes))


def test_what_can_be_is_taken():
    check_settings(Settings())
    check_settings(Settings(share=0.0, part=1, steps=1, kind="tucker", kinds=" tucker, tt,"))


def test_a_range_and_its_ends():
    assert [value in Range(text="(0, 1]") for value in (0, 0.5, 1, 2)] == [False, True, True, False]
    assert 1e300 in Range(text="[0, inf)")


@pytest.mark.parametrize("cls", [Settings, CycleConfig, CompressConfig])
def test_every_setting_is_in_the_docstring_and_the_default_may_be(cls):
    words = " ".join(cls.__doc__.split())
    for one in settings_of(cls):
        assert f"{one.name}: {' '.join(one.help.split())}" in words
    check_settings(cls())


def test_what_an_older_version_did_not_write_is_as_by_default():
    assert read_settings(Settings, {"share": 0.25}) == Settings(share=0.25)


def test_what_only_a_newer_version_knows_is_named_in_one_error():
    with pytest.raises(ConfigError, match="does not know the settings later, more; they are of"):
        read_settings(Settings, {"share": 0.25, "more": 1, "later": 2})
    with pytest.raises(ConfigError, match="an object of names and values, found None"):
        read_settings(Settings, None)
