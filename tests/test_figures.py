"""The figures of README and the pages are those of the files in `results/`, or of constants."""

import re

import figures.kernels
import figures.models
import figures.speed
import figures.structure  # noqa: F401
import pytest
from figures.said import ROOT, SAYS, bare, raw, read, text_of

PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
BOUND = [page for page in PAGES if page != "settings"]  # that page is generated
FIGURE = re.compile(r"[\d,]*\d\.\d+(?:e-?\d+)?|\d+ %")
LINK = re.compile(r"\(\.\./results/([\w.-]+)\.json\)")
HERE = re.compile(r" --(?:out|output|json|plot|figure)[= ]\S+")


@pytest.mark.parametrize(("name", "page"), SAYS, ids=["-".join(key) for key in SAYS])
def test_a_page_says_what_the_file_says(name, page):
    phrases, text = list(SAYS[name, page](read(name))), text_of(page)
    assert phrases
    assert [phrase for phrase in phrases if phrase not in text] == []


@pytest.mark.parametrize("page", BOUND)
def test_every_figure_is_in_a_file(page):
    text = bare(raw(page))
    phrases = [one for (name, of), say in SAYS.items() if of == page for one in say(read(name))]
    for phrase in sorted(map(bare, phrases), key=len, reverse=True):
        text = text.replace(phrase, "")
    assert FIGURE.findall(text) == []


def sections() -> list[str]:
    return re.split(r"^### ", raw("results"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.splitlines()[0])
def test_a_section_names_its_file_and_the_command_that_wrote_it(section):
    names, text = LINK.findall(section), re.sub(r"\s+", " ", section)
    assert names
    for name in names:
        told = read(name)
        ran = [told] if "command" in told else told["studies"].values()
        commands = [HERE.sub("", one["command"].partition(";")[0]) for one in ran]
        for module, command in {"run": "bin/demo", "targets": "morph targets"}.items():
            commands = [one.replace(f"python -m experiments.{module}", command) for one in commands]
        assert any(command in text for command in commands), commands


def test_every_file_is_told():
    files = {path.stem for path in (ROOT / "results").glob("*.json")}
    told = {name for page in ("results", "tensorize") for name in LINK.findall(raw(page))}
    assert sorted(files - told) == []
