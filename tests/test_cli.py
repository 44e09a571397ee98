"""The command line from outside: exit codes, messages, and that help costs nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnihuman import cli
from omnihuman.cli.parsing import Verb
from omnihuman.errors import UserError

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "pandas", "omegaconf", "yaml", "dvc")
VERBS = (
    ("config", "compose"),
    ("config", "show"),
    ("data", "collect"),
    ("data", "split"),
    ("data", "score"),
    ("data", "caption"),
    ("data", "decide"),
    ("data", "encode"),
    ("data", "train-syncnet"),
    ("train",),
    ("evaluate",),
    ("render",),
    ("checkpoint", "import"),
    ("checkpoint", "export"),
    ("checkpoint", "verify"),
    ("demo",),
    ("ablate", "plan"),
    ("ablate", "run"),
    ("ablate", "report"),
    ("batch", "submit"),
    ("batch", "work"),
    ("batch", "status"),
    ("batch", "redrive"),
    ("registry", "register"),
    ("registry", "promote"),
    ("registry", "rollback"),
    ("registry", "list"),
    ("registry", "delete"),
    ("lineage",),
    ("up",),
    ("down",),
)


def omnihuman(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omnihuman.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_help_takes_less_than_a_second_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from omnihuman.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit as end: print(end.code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):  # the best of three, because other tests run beside this one
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert result.stderr.strip() == "0 []"
    assert min(seconds) < 1


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*verb, "--help"])
    assert end.value.code == 0 and f"usage: omnihuman {' '.join(verb)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config", "compose", "--profile", "dmeo"], "did you mean demo"),
        (["config", "compose", "encode.num_framse=17"], "did you mean encode.num_frames"),
        (["config", "compose", "--check", "seed=1"], "--check"),
        (["config", "show", "colect"], "did you mean collect"),
        (["demo", "--profile", "dmeo"], "did you mean demo"),
        (["demo", "--data", "/no/such/folder"], "no such folder"),
        (["train", "4_hands"], "1_text_image, 2_audio, 3_pose"),
        (["data", "colect"], "invalid choice"),
        ([], "VERB"),
    ],
)
def test_the_users_mistake_is_one_message_and_exit_code_2(arguments: list[str], said: str) -> None:
    before = (ROOT / "params.yaml").read_bytes()
    result = omnihuman(*arguments)
    assert result.returncode == 2
    assert said in result.stderr and "Traceback" not in result.stderr and not result.stdout
    assert (ROOT / "params.yaml").read_bytes() == before


def test_outside_the_project_it_says_where_to_run(tmp_path: Path) -> None:
    for arguments in (["config", "compose"], ["config", "show"], ["data", "collect"]):
        result = omnihuman(*arguments, folder=tmp_path)
        assert result.returncode == 2 and "run this in the project's folder" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_one_line_and_a_defect_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ending(error: BaseException) -> Verb:
        def verb(_: object) -> int:
            raise error

        return verb

    monkeypatch.setattr(cli.evaluate, "_evaluate", ending(KeyboardInterrupt()))
    assert cli.main(["evaluate"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(cli.evaluate, "_evaluate", ending(UserError("what, where, remedy")))
    assert cli.main(["evaluate"]) == 2
    assert capsys.readouterr().err == "error: what, where, remedy\n"
    monkeypatch.setattr(cli.evaluate, "_evaluate", ending(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate"])


def test_the_committed_params_are_up_to_date_and_shown() -> None:
    result = omnihuman("config", "compose", "--check")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")
    assert "rope_axes" in omnihuman("config", "show", "model").stdout
    assert omnihuman("config", "show", "encode.num_frames").stdout.strip().isdigit()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m omnihuman.cli config show | head -c 1; exit ${{PIPESTATUS[0]}}"
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 128 + signal.SIGPIPE) and not done.stderr and len(done.stdout) == 1


def test_a_closed_output_is_no_error() -> None:
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = f"{sys.executable} -m omnihuman.cli config show >&-"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr


def test_another_broken_pipe_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("omnihuman.cli.config._show", broken)
    with pytest.raises(BrokenPipeError):
        cli.main(["config", "show"])
