"""Promotion, rollback and what kills and rivals do to them, on a real MLflow store."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.registered import champion, finish_run, set_param, trusting
from tests.test_gate import estimate, figures
from tests.tiny import DESCRIPTION

from omnihuman import cli
from omnihuman.errors import UserError
from omnihuman.registry.aliases import GateRefused, delete, promote, rollback, versions
from omnihuman.registry.register import register
from omnihuman.registry.store import connect, find
from omnihuman.registry.versions import resolve

pytest_plugins = "tests.registry_fixtures"
pytestmark = pytest.mark.slow


def test_promotions_and_rollbacks_go_along_the_history(place: Path) -> None:
    assert promote("1", smoke=trusting).previous is None
    done = promote("2", smoke=trusting)
    assert (done.version, done.previous, done.moved) == (2, 1, True) and resolve("champion").version == 2
    assert find(connect(), "2").tags["previous_champion"] == "1"
    assert not promote("2", smoke=trusting).moved
    with pytest.raises(GateRefused, match=r"FAIL  mouth opening follows the sound: 0\.100 against 0\.350"):
        promote("3", smoke=trusting)
    assert champion() == 2
    promote("3", override="a trial", smoke=trusting)
    assert find(connect(), "3").tags["override"] == "a trial" and "override" not in find(connect(), "2").tags
    with pytest.raises(UserError, match="is the champion"):
        delete("champion")
    with pytest.raises(UserError, match="rollback"):
        delete("2")
    assert rollback() == (3, 2) and rollback() == (2, 1)
    with pytest.raises(UserError, match="first champion"):
        rollback()
    assert delete("3") == 3 and [row.version for row in versions()] == [2, 1]


def test_a_champion_set_by_hand_and_a_deleted_one_do_not_lose_the_way_back(place: Path) -> None:
    for number in ("1", "2"):
        promote(number, smoke=trusting)
    promote("3", override="a trial", smoke=trusting)
    assert delete("1") == 1
    connect().set_registered_model_alias("omnihuman", "champion", "2")
    assert rollback() == (2, 3) and rollback() == (3, 2)
    with pytest.raises(UserError, match="first champion"):
        rollback()


def test_a_champion_that_came_by_another_way_is_named_with_the_remedy(place: Path) -> None:
    promote("1", smoke=trusting)
    connect().delete_model_version_tag("omnihuman", "1", "evaluation")
    with pytest.raises(UserError, match="version 1 of omnihuman has no figures to compare with"):
        promote("2", smoke=trusting)
    assert champion() == 1


def test_a_champion_of_another_evaluation_set_is_measured_again_on_this_one(place: Path) -> None:
    promote("1", smoke=trusting)
    set_param(place, "evaluate", "num_pose_clips", 1)
    finish_run(place, 6, figures())
    register(place)
    (place / "data/encoded").rename(place / "data/away")
    with pytest.raises(GateRefused, match="FAIL  measured on the champion's set"):
        promote("candidate", smoke=trusting)
    (place / "data/away").rename(place / "data/encoded")
    assert promote("candidate", smoke=trusting).moved
    tags = find(connect(), "1").tags
    measured = json.loads(tags[f"evaluation/{find(connect(), '4').tags['evaluation_set']}"])
    assert measured["clips_by_sound"] == 2 and measured["clips_by_pose"] == 1


def test_a_champion_that_changes_meanwhile_aborts_the_promotion(place: Path) -> None:
    promote("1", smoke=trusting)

    def someone_else(_: int) -> None:
        connect().set_registered_model_alias("omnihuman", "champion", "3")

    with pytest.raises(UserError, match="changed from 1 to 3 while version 2"):
        promote("2", smoke=someone_else)
    assert champion() == 3 and "promoted" not in find(connect(), "2").tags


def test_a_second_promotion_is_turned_away_while_one_is_under_way(place: Path) -> None:
    said = []

    def second(_: int) -> None:
        with pytest.raises(UserError, match="another process holds") as refused:
            promote("2", smoke=trusting)
        said.append(refused)

    promote("1", smoke=second)
    assert said and champion() == 1


@pytest.mark.parametrize(("method", "after"), [("set_registered_model_alias", 1), ("set_model_version_tag", 2)])
def test_a_killed_promotion_is_settled_by_the_next_one(place: Path, method: str, after: int) -> None:
    promote("1", smoke=trusting)
    program = (
        "import os, signal; from mlflow import MlflowClient; from omnihuman.registry.aliases import promote\n"
        f"MlflowClient.{method} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "promote('2', smoke=lambda _: None)"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL and champion() == after
    assert not promote("champion", smoke=trusting).moved  # any next call settles
    assert ("promoted" in find(connect(), "2").tags) == (after == 2)
    promote("3", override="a trial", smoke=trusting)
    assert rollback() == (3, after)
    if after == 2:
        assert rollback() == (2, 1)


def test_promotion_loads_and_renders_in_a_clean_process(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["registry", "promote", "2"]) == 0
    assert "version 2 is the champion" in capsys.readouterr().out
    other = replace(DESCRIPTION, model=replace(DESCRIPTION.model, width=64))  # not what the weights are
    finish_run(place, 4, figures(opening__generated=estimate(0.85, 0.8, 0.9)), other)
    number = register(place).version
    assert cli.main(["registry", "promote"]) == 2
    error = capsys.readouterr().err
    assert f"version {number} does not load and render" in error and "does not fit model.json" in error
    assert champion() == 2


def test_the_list_is_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promote("1", smoke=trusting)
    assert cli.main(["registry", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["version", "aliases", "run"] and [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert "candidate" in rows[0] and "0.10 [0.05, 0.15]" in rows[0] and "champion" in rows[2]
