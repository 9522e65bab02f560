"""What no flag can have, and outputs that cannot be written: refused before any work."""

import re

import pytest
from absl import flags

from experiments import compare, fit_edge_tpu, inspect, sweep, targets
from experiments.console.flags import check_output, define_width, read_flags
from morph.errors import ConfigError


@pytest.fixture
def own():
    found = flags.FlagValues()
    define_width(found, 1.0)
    flags.DEFINE_string("workdir", None, "", flag_values=found)
    flags.DEFINE_list("budgets", [], "", flag_values=found)
    return found


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--width=nan", "--width must be a finite number, found nan"),
        ("--workdir=a\0b", r"--workdir: 'a\x00b' holds a NUL"),
        ("--budgets=1,a\0b", r"--budgets: 'a\x00b' holds a NUL"),
        ("--flagfile=a\0b", "--flagfile must name a text file with one flag a line: embedded null"),
    ],
)
def test_what_no_flag_can_have(own, argument, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_flags(own, ["command", argument])


@pytest.mark.parametrize("width", ["inf", "1e30", "0", "-1"])
def test_a_width_is_of_this_world(own, width):
    with pytest.raises(flags.IllegalFlagValueError, match="width"):
        read_flags(own, ["command", f"--width={width}"])


def test_a_file_of_flags_is_text(own, tmp_path):
    path = tmp_path / "flags"
    path.write_bytes(b"\x89PNG\xff\xfe\0")
    with pytest.raises(ConfigError, match="--flagfile must name a text file"):
        read_flags(own, ["command", f"--flagfile={path}"])
    path.write_text("--width=0.5\n")
    assert read_flags(own, ["command", f"--flagfile={path}", "more"]) == ["command", "more"]
    assert own.width == 0.5


def test_an_output_is_a_file_that_can_be_written(tmp_path, monkeypatch):
    check_output("output", tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"--output=.* is a directory; name a file"):
        check_output("output", tmp_path)
    with pytest.raises(ConfigError, match=r"--output=.*: there is no directory '.*none'"):
        check_output("output", tmp_path / "none" / "a.json")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anything
    with pytest.raises(ConfigError, match="cannot be written: permission denied"):
        check_output("output", tmp_path / "a.json")


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (targets.main, ["--output={}", "--seed_network=mlp", "--dataset=digits"]),
        (compare.main, ["--output={}.png", "anything"]),
        (inspect.main, ["--picture={}.svg", "--seed_network=mlp"]),
        (fit_edge_tpu.main, ["--json={}"]),
    ],
)
def test_every_output_is_looked_at_first(main, arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["command", *(one.format(tmp_path / "none" / "a") for one in arguments)])
    assert end.value.code == 2
    assert "there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (sweep.main, ["--penalty=gates"], "no gates; choose group_lasso or gamma"),
        (sweep.main, ["--seeds=0,9223372036854775808"], "seed must be in [0, 4294967296)"),
        (sweep.main, ["--seed=4294967296"], "seed must be in [0, 4294967296)"),
        (targets.main, ["--targets=here,flopz"], "no cost 'flopz'"),
        (targets.main, ["--width=inf"], "width"),
    ],
)
def test_what_code_cannot_do_is_refused_before_any_work(
    main, arguments, told, tmp_path, capsys, monkeypatch
):
    def timed():
        raise AssertionError("timed")

    monkeypatch.setattr("regularizers.named.calibrate", timed)
    common = ["--seed_network=mlp", "--dataset=digits", f"--workdir={tmp_path / 'never'}"]
    with pytest.raises(SystemExit) as end:
        main(["command", *common, *arguments])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
