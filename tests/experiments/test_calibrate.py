"""The command that times this machine; what is timed is tested beside the library."""

import pytest

import regularizers as reg
from experiments import calibrate


class Found:
    """In place of a calibration."""

    busy = False

    def save(self, path):
        self.path = path

    def __str__(self):
        return "what operations cost here"


@pytest.mark.parametrize("busy", [False, True])
def test_a_fresh_calibration_is_kept_unless_the_machine_was_busy(
    busy, monkeypatch, capsys, tmp_path
):
    found, asked = Found(), {}
    found.busy = busy
    monkeypatch.setattr(reg, "calibrate", lambda **options: asked.update(options) or found)
    monkeypatch.setattr(calibrate, "cache_path", lambda: tmp_path / "kept.json")
    calibrate.main(["calibrate", "--fresh", "--timing_seconds=3"])
    assert asked == {"cache": False, "seconds": 3.0}
    assert capsys.readouterr().out == "what operations cost here\n"
    assert hasattr(found, "path") != busy
    calibrate.main(["calibrate", f"--output={tmp_path / 'here.json'}"])
    assert asked["cache"]
    assert found.path == str(tmp_path / "here.json")
