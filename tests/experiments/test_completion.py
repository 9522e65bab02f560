"""What `morph completion` prints, and what a shell makes of it."""

import shutil
import subprocess

import pytest

from experiments import completion
from experiments.commands import COMMANDS
from experiments.vocabulary import SHELLS

ASK = """
source {script}
COMP_WORDS=(morph {words}); COMP_CWORD=$(({number})); COMPREPLY=()
_shtab_morph morph
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def printed():
    """By shell."""
    pytest.importorskip("shtab")  # the extra `test` brings it

    def of(shell, capsys):
        completion.main(["morph completion", shell])
        return capsys.readouterr().out

    return of


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_all_commands(shell, printed, capsys):
    text = printed(shell, capsys)
    assert [name for name in (*COMMANDS, "--budget", "--noblocks") if name not in text] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ru"], "run"),
        (["run", "--bud"], "--budget"),
        (["run", "--optimizer", "ad"], "adam adamw"),
        (["completion", "''"], "bash zsh"),
    ],
)
def test_bash_completes(words, found, printed, capsys, tmp_path):
    script = tmp_path / "morph.bash"
    script.write_text(printed("bash", capsys))
    ask = ASK.format(script=script, words=" ".join(words), number=len(words))
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_a_shell_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        completion.main(["morph completion", "fish"])
    assert stop.value.code == 2
    assert "name one shell of bash, zsh: found fish" in capsys.readouterr().err
