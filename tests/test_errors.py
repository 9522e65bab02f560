"""One base for all that a person can mend, and one line for it on a terminal."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import experiments
import morph
import regularizers as reg
from experiments.console.command import launch
from experiments.console.declared import Command
from regularizers.errors import InputError, MorphError, UnknownNameError
from regularizers.vocabulary import check_name


def defined():
    """Every exception class of the three packages; warnings and control-C are none."""
    found = set()
    for package in (reg, morph, experiments):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if (
                    issubclass(one, Exception)
                    and not issubclass(one, Warning)
                    and one.__module__ == module.name
                ):
                    found.add(one)
    return sorted(found, key=lambda one: one.__name__)


def test_every_error_of_ours_has_the_one_base():
    ours = defined()
    assert len(ours) > 15
    assert [one.__name__ for one in ours if not issubclass(one, MorphError)] == []


def test_an_unknown_name_is_told_as_it_was_written():
    with pytest.raises(KeyError, match="no block") as caught:
        raise UnknownNameError("no block 'z'")
    assert str(caught.value) == "no block 'z'"


def test_both_surfaces_show_the_same_base():
    assert morph.MorphError is MorphError
    assert reg.MorphError is MorphError


def test_an_error_of_ours_is_also_what_the_standard_library_calls_it():
    with pytest.raises(ValueError, match="no cost 'flop'") as caught:
        check_name("flop")
    assert isinstance(caught.value, InputError)


def command(error):
    def run(options, line, console):
        raise error

    launch(Command(name="none", help="", declare=lambda own: None, common=()), ["none"], run)


@pytest.mark.parametrize("error", [InputError("too wide"), morph.BudgetError("too wide")])
def test_what_a_person_can_mend_is_one_line_and_status_2(error, capsys):
    with pytest.raises(SystemExit) as caught:
        command(error)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: too wide\n"


def test_an_error_of_the_system_names_the_file(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command(FileNotFoundError(2, "No such file or directory", str(tmp_path / "gone")))
    assert capsys.readouterr().err == f"error: {tmp_path / 'gone'}: no such file or directory\n"


@pytest.mark.parametrize("bug", [ValueError("a bug"), KeyError("a bug"), TypeError("a bug")])
def test_a_bug_is_a_traceback(bug):
    with pytest.raises(type(bug), match="a bug"):
        command(bug)


ROOT = Path(__file__).parent.parent
OURS = {one.__name__ for one in defined()}


@pytest.mark.parametrize("package", ["regularizers", "morph", "experiments"])
def test_context_is_added_to_an_error_of_ours_or_it_is_left_alone(package):
    """Whoever catches one to raise another has more to tell than another class."""
    bare = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for handler in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
                continue
            caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
            bare += [
                f"{path.relative_to(ROOT)}:{node.lineno}"
                for node in ast.walk(handler)
                if isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and [ast.unparse(argument) for argument in node.exc.args]
                == [f"str({handler.name})"]
                and caught & OURS
            ]
    assert bare == []
