import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

import experiments
from experiments.console.display import Display, Result, figure_table, result_table, width_table
from experiments.console.terminal import terminal

NAMES = ["[/home/x.py:3]", "exp[lr=0.1]", "[/b]", "morph-jax[plots]", "[bold]a", ":smile:", "\\[a]"]


def shown(print_it, **options):
    file = io.StringIO()
    print_it(terminal(file=file, width=120, **options))
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_markup_is_text(name):
    table = figure_table(name, [name, "b"], [(name, name)])
    for text in (
        shown(lambda console: console.print(f"Look at {name}", soft_wrap=True)),
        shown(lambda console: Display(console=console).print(f"no pictures: {name}")),
        shown(lambda console: console.print(table)),
        shown(lambda console: console.print(width_table([(name, 3, 2, 1)], title=name))),
        shown(lambda console: console.print(result_table(
            [Result(name=name, flops=1.0, parameters=1, accuracy=0.5)]))),
    ):  # fmt: skip
        assert name in text


@pytest.mark.parametrize("colors", [{}, {"force_terminal": True, "color_system": "truecolor"}])
def test_control_characters_do_not_reach_the_terminal(colors):
    name = "a\x1b[2Jb\x07\u202ec"
    for item in (name, Text(name, "red"), figure_table(name, [name], [(name,)])):
        text = shown(lambda console, item=item: console.print(item), **colors)
        assert r"a\x1b[2Jb\u202ec" in text  # rich itself drops the bell
        assert "\x1b[2J" not in text
        assert "\x07" not in text


def test_a_live_panel_still_moves():
    def live(console):
        with Display(console=console) as display:
            display.phase("two\x1b[2J", 3)
            display.update(1, loss=0.5)

    text = shown(live, force_terminal=True)
    assert "\x1b[?25l" in text  # the cursor is hidden: rich's own codes go through
    assert "\x1b[2J" not in text
    assert r"two\x1b[2J" in text


def test_other_tables_are_as_they_were():
    table = Table(title="t")
    table.add_column("a")
    table.add_row("1")
    file = io.StringIO()
    Console(file=file, width=120).print(table)
    assert shown(lambda console: console.print(table)) == file.getvalue()


def test_no_command_makes_a_console_of_its_own():
    root = Path(experiments.__file__).parent
    bare = re.compile(r"(?<!\w)Console\(")
    found = [path.name for path in root.rglob("*.py") if bare.search(path.read_text("utf-8"))]
    assert found == ["terminal.py"]
