import pytest

from morph.cycle.workdir import locked
from morph.errors import WorkdirError
from regularizers.messages import near, reason


def test_near_matches_or_the_first_few_known():
    assert near("layer_0", ["layers_0", "layers_1", "head"]).startswith("; did you mean 'layers_0'")
    assert near("zz", list("abcdefgh")) == "; known are 'a', 'b', 'c', 'd', 'e', 'f', ..."


def test_a_path_is_told_once(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_text()
    assert reason(caught.value) == "No such file or directory"
    assert reason(OSError("full")) == "full"
    assert reason(ValueError("it is not UTF-8")) == "it is not UTF-8"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(WorkdirError) as refused, locked(file):
        pass
    assert str(refused.value).count(str(file)) == 1
