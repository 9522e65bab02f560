"""One base for all that a person can mend, and one line for it on a terminal."""

import importlib
import inspect
import pkgutil

import pytest
from absl import flags

import experiments
import morph
import regularizers as reg
from experiments.console.command import launch
from regularizers.errors import InputError, MorphError, UnknownNameError
from regularizers.named import check_name


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

    options = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Help.", flag_values=options)
    launch("experiments.none", "", options, ["none"], run)


@pytest.mark.parametrize("error", [InputError("too wide"), morph.BudgetError("too wide")])
def test_what_a_person_can_mend_is_one_line_and_status_2(error, capsys):
    with pytest.raises(SystemExit) as caught:
        command(error)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: too wide\n"


@pytest.mark.parametrize("bug", [ValueError("a bug"), KeyError("a bug"), TypeError("a bug")])
def test_a_bug_is_a_traceback(bug):
    with pytest.raises(type(bug), match="a bug"):
        command(bug)
