"""Every command before it is loaded: help, mistyped flags, and an installation without extras."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from experiments import __main__ as all_commands
from experiments.commands import COMMANDS, UNLISTED, declared
from experiments.console.help import GROUPS, default_of, shown
from experiments.console.start import started

ROOT = Path(__file__).parents[2]
NAMES = [*COMMANDS, *UNLISTED]
HEAVY = ("jax", "flax", "numpy", "optax", "scipy")
# What only extras install.
EXTRAS = (
    "PIL", "ai_edge_litert", "ai_edge_quantizer", "bitarray", "ckwrap", "constriction", "equinox",
    "flatbuffers", "grain", "haiku", "litert_converter", "matplotlib", "onnx", "onnxruntime",
    "resvg_py",
    "safetensors", "shtab", "sklearn", "submitit", "tensorboardX", "tokenizers", "zstandard",
)  # fmt: skip
WITHOUT = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"
HELP = """
from experiments.__main__ import main
for name in {commands!r}:
    for flag in ("--help", "--helpfull", "--bugdet=1"):
        try:
            main(["morph", name, flag])
        except SystemExit as end:
            assert end.code == (2 if "bugdet" in flag else 0), (name, flag, end.code)
"""
INSPECT = """
from experiments.__main__ import main
main(["morph", "inspect", "--seed_network=mlp", "--input=1,4,4,1"])
main(["morph", "compare", "."])
"""


def python(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_and_mistyped_flags_need_neither_jax_nor_extras(tmp_path):
    code = WITHOUT.format(names=(*HEAVY, *EXTRAS)) + HELP.format(commands=list(COMMANDS))
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: Unknown command line flag 'bugdet'") == len(COMMANDS)
    assert done.stderr.count("\n") == len(COMMANDS)
    assert done.stdout.count("Exit status: 0") == 2 * len(COMMANDS)


def test_inspect_and_compare_need_no_extras(tmp_path):
    done = python(WITHOUT.format(names=EXTRAS) + INSPECT, tmp_path)
    assert "Channel groups" in done.stdout, done.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def seconds(*line):
    """Of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_less_than_importing_jax():
    assert seconds("-m", "experiments.run", "--help") < seconds("-c", "import jax")


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_and_the_flags_that_are_needed_most(name):
    command = declared(name)
    options = command.define()
    options(["command", "--help"])
    told = command.told(options)
    assert f"    morph {name} " in told or name in UNLISTED
    assert {f"--{flag}" for flag in command.common} <= set(told.replace("[no]", "").split())
    options(["command", "--helpfull"])
    everything = command.told(options).replace("[no]", "").split()
    assert [f"--{flag}" for flag in shown(options) if f"--{flag}" not in everything] == []


def test_every_group_of_flags_names_flags_of_some_command():
    known = {flag for name in NAMES for flag in shown(declared(name).define())}
    grouped = [flag for names in GROUPS.values() for flag in names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) - known == set()


def test_defaults_are_as_typed():
    own = flags.FlagValues()
    flags.DEFINE_list("budgets", ["1", "0.5"], "", flag_values=own)
    flags.DEFINE_bool("blocks", False, "", flag_values=own)
    assert (default_of(own["budgets"]), default_of(own["blocks"])) == ("1,0.5", "false")


def test_commands_are_one_command(capsys):
    all_commands.main(["morph"])
    assert "  sweep      draws accuracy against cost" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        all_commands.main(["morph", "sweeep"])
    assert stop.value.code == 2
    assert "no command 'sweeep'; did you mean 'sweep'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        all_commands.main(["morph", "sweep", "-h"])
    assert stop.value.code == 0
    assert "--model" in capsys.readouterr().out
    all_commands.main(["morph", "--version"])
    assert capsys.readouterr().out == "morph 0.2.0\n"


@pytest.mark.parametrize(
    ("argv", "line", "module"),
    [
        (["-m", "--help"], ["python", "-P", "-m", "experiments.run", "--help"], "experiments.run"),
        (["-m"], ["python", "-mexperiments.run"], "experiments.run"),
        (["run.py", "-m"], ["python", "run.py", "-m"], ""),
    ],
)
def test_the_module_that_is_being_started(argv, line, module):
    assert started(argv, line) == module
