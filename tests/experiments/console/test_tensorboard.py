"""Scalars for TensorBoard; what a run leaves there is in `test_run.py`."""

import pytest

from experiments.console import tensorboard
from experiments.console.tensorboard import Listeners, TensorBoard
from morph.errors import ConfigError

pytest.importorskip("tensorboardX")


def full(*args):
    raise OSError(28, "No space left on device")


def told(folder):
    with TensorBoard(folder) as board:
        heard = Listeners([board])
        heard.seed({"a": 3})
        heard.phase("shrink", 2)
        for step in (1, 2):
            heard.update(step, loss=0.5, none=None, widths={"a": 2, "b": 1})


class Full:
    """A writer whose disk is full when one of its methods is called."""

    def __init__(self, path):
        for name in ("write", "flush", "close"):
            setattr(self, name, lambda *args: None)
        setattr(self, self.fails, full)


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path, monkeypatch, capsys, method):
    monkeypatch.setattr(Full, "fails", method, raising=False)
    monkeypatch.setattr(tensorboard, "RecordWriter", Full)
    told(tmp_path / "board")
    message = "no more scalars for TensorBoard: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == message


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    told(tmp_path / "file" / "board")
    assert capsys.readouterr().err.startswith("no more scalars for TensorBoard: [Errno 20]")


def test_numbers_have_tags():
    metrics = {"loss": 1, "widths": {"a": 2, "b": 1}, "none": None}
    found = tensorboard._numbers("shrink", metrics)
    assert found == [
        ("shrink/loss", 1.0), ("shrink/widths/a", 2.0), ("shrink/widths/b", 1.0),
        ("shrink/channels", 3.0),
    ]  # fmt: skip


def test_without_tensorboardx_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delattr(tensorboard, "RecordWriter")
    with pytest.raises(ConfigError, match="--tensorboard needs tensorboardX"):
        TensorBoard(tmp_path)
