"""The graph: the code that each step depends on is the code that it imports, and DVC's answers reach us."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from omnihuman.pipeline.graph import Outcome, StepNode, nodes, repro, run_step, status, steps

ROOT = Path(__file__).parents[1]
ENTRIES = {
    "collect": "omnihuman.data.sources",
    "split": "omnihuman.data.shots",
    "score": "omnihuman.data.scoring",
    "caption": "omnihuman.data.captions",
    "duplicates": "omnihuman.data.duplicates",
    "decide": "omnihuman.data.deciding",
    "encode": "omnihuman.data.precompute",
    "train": "omnihuman.training.run",
    "evaluate": "omnihuman.evaluation.run",
}
"""The module that the command line calls in each step; the command line itself and composition are wiring."""
STEPS = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("omnihuman", exclude_type_checking_imports=True, cache_dir=None)


def code_of(step: str) -> set[Path]:
    """Files that the step's module imports, directly or not, and itself; NAME.html.jinja goes with NAME.py."""
    modules = {ENTRIES[step], *import_graph().find_upstream_modules(ENTRIES[step])}
    stems = [ROOT / "src" / Path(*module.split(".")) for module in modules]
    files = [stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py") for stem in stems]
    templates = [other for file in files for other in file.parent.glob(f"{file.stem}.*.jinja")]
    return {file.relative_to(ROOT) for file in [*files, *templates] if file.stat().st_size}


def code_deps(step: str) -> set[Path]:
    """The step's dependencies under src, with the drawn corpus as the source."""
    body = STEPS[step].get("do", STEPS[step])
    deps = [str(dep).replace("${collect.depends_on}", "src/omnihuman/data/synthetic") for dep in body.get("deps", [])]
    return {Path(dep) for dep in deps if dep.startswith("src/")}


def lines(paths: set[Path]) -> str:
    return "\n".join(f"      - {path}" for path in sorted(paths))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_depends_on_the_code_that_it_imports(step: str) -> None:
    files, deps = code_of(step), code_deps(step)
    missing = {file for file in files if not deps & {file, *file.parents}}
    surplus = {dep for dep in deps if not any(dep in (file, *file.parents) for file in files)}
    assert not missing, f"dvc.yaml, step {step}: add to deps\n" + lines(missing)
    assert not surplus, f"dvc.yaml, step {step}: remove from deps\n" + lines(surplus)


@pytest.mark.parametrize("step", STEPS)
def test_wiring_makes_no_step_stale(step: str) -> None:
    wiring = set(ROOT.glob("src/omnihuman/cli/*.py")) | set(ROOT.glob("src/omnihuman/config/*.py"))
    wiring.discard(ROOT / "src/omnihuman/config/__init__.py")
    deps = {ROOT / dep for dep in code_deps(step)}
    assert not [file for file in wiring if deps & {file, *file.parents}]


def test_the_steps_come_in_the_order_of_the_chain() -> None:
    order = [step.partition("@")[0] for step in steps(ROOT)]
    assert [step for step in dict.fromkeys(order)] == [step for step in ENTRIES if step in STEPS]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph of two steps; `second` copies what `first` made of the file `input`."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    root = tmp_path / "with space"
    root.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    stages = {
        "second": {"cmd": "cp b c", "deps": ["b"], "outs": ["c"]},
        "first": {"cmd": "grep -q good input || exit 2; cp input b", "deps": ["input"], "outs": ["b"]},
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / "input").write_text("good 1")
    return root


def test_repro_runs_what_is_stale_and_hands_on_the_exit_code(small: Path) -> None:
    assert steps(small) == ["first", "second"]
    assert set(status(small)) == {"first", "second"}
    assert repro(small, ["first"]) == 0 and not (small / "c").exists()
    assert repro(small) == 0 and (small / "c").read_text() == "good 1"
    assert status(small) == {}
    (small / "input").write_text("bad")
    assert set(status(small)) == {"first"}
    assert repro(small) == 2


def test_repro_finds_the_programs_of_its_own_environment(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"show": {"cmd": "omnihuman --help > help", "outs": ["help"]}}
    (small / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert repro(small) == 0 and "usage: omnihuman" in (small / "help").read_text()
    (small / "dvc.yaml").write_text("stages: [")
    assert repro(small) == 1


def test_a_step_says_how_it_came_to_its_outputs(small: Path) -> None:
    first = run_step(small, "first")
    assert (first.name, first.exit_code, first.outcome) == ("first", 0, Outcome.RAN) and first.seconds > 0
    assert not (small / "c").exists(), "a step later in the graph was not asked for"
    assert run_step(small, "first").outcome is Outcome.CURRENT
    (small / "dvc.lock").unlink()
    (small / "b").unlink()
    assert run_step(small, "first").outcome is Outcome.RESTORED
    assert (small / "b").read_text() == "good 1"
    (small / "input").write_text("bad")
    failed = run_step(small, "first")
    assert (failed.exit_code, failed.outcome) == (2, Outcome.FAILED)
    assert not list((small / ".dvc/tmp").glob("tmp*")), "notes are removed"


def test_a_step_gets_its_environment_prints_where_it_is_told_and_an_unknown_one_fails(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"show": {"cmd": "echo said $ONE; omnihuman --help > help", "deps": ["input"], "outs": ["help"]}}
    (small / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(small.parent)
    with (small / "log").open("wb") as output:
        result = run_step(Path(small.name), "show", {**os.environ, "ONE": "two", "PATH": "/usr/bin:/bin"}, output)
        unknown = run_step(Path(small.name), "shwo", output=output)
    assert result.outcome is Outcome.RAN and "usage: omnihuman" in (small / "help").read_text()
    assert unknown.exit_code == 1
    said = (small / "log").read_text()
    assert "said two\n" in said and "error: Stage 'shwo' not found" in said and "Traceback" not in said


def test_nodes_name_parameters_and_what_comes_before() -> None:
    graph = nodes(ROOT)
    assert list(graph) == steps(ROOT)
    assert graph["split"] == StepNode(params=("split",), after=("collect",))
    assert "stages.2_audio" in graph["train@2_audio"].params
    assert set(graph["train@2_audio"].after) == {"encode", "train@1_text_image"}
