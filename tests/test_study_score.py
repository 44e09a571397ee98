"""Scoring blind studies: closed forms, published examples, coverage of simulated studies, and files that lie."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from tests.study_fixtures import answers, careful, make_key, random_choice, write_answers

from omnihuman import cli
from omnihuman.errors import UserError
from omnihuman.evaluation.study.agreement import holm, krippendorff_alpha
from omnihuman.evaluation.study.description import Rules
from omnihuman.evaluation.study.intervals import preferred
from omnihuman.evaluation.study.report import table, write_result
from omnihuman.evaluation.study.score import StudyResult, score
from omnihuman.evaluation.study.strengths import HALF_VOTE, strengths
from omnihuman.evaluation.study.votes import Votes

NUM_STUDIES = 200


# Closed forms and published examples.


@given(st.integers(0, 500), st.integers(0, 500))
def test_two_systems_are_apart_by_the_log_odds_of_their_votes(first: int, second: int) -> None:
    found = strengths(np.array([first, second], float), np.array([first + second], float), np.ones((1, 2), bool))
    assert found[0] - found[1] == pytest.approx(np.log((first + HALF_VOTE) / (second + HALF_VOTE)))


def test_systems_that_always_stand_side_by_side_have_the_logs_of_their_votes() -> None:
    wins = np.array([[30.0, 12, 8, 0], [1, 1, 1, 1]])
    expected = np.log(wins + HALF_VOTE)
    found = strengths(wins, wins.sum(axis=1, keepdims=True), np.ones((1, 4), bool))
    np.testing.assert_allclose(found, expected - expected.mean(axis=1, keepdims=True), atol=1e-8)


def test_strengths_of_mixed_sets_are_at_the_top_of_the_likelihood() -> None:
    sets = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]], bool)
    wins_of_set = np.array([[9, 4, 0, 0], [0, 7, 2, 0], [0, 0, 3, 3], [6, 0, 1, 0]], float)
    prior = np.full(4, HALF_VOTE)

    def loss(logs: np.ndarray) -> float:
        among = np.log((np.exp(logs) * sets).sum(axis=1))
        virtual = prior @ logs - prior.sum() * np.log(np.exp(logs).sum())
        return -((wins_of_set * logs).sum() - wins_of_set.sum(axis=1) @ among + virtual)

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    found = strengths(wins_of_set.sum(axis=0), wins_of_set.sum(axis=1), sets)
    np.testing.assert_allclose(found, best - best.mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [  # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), examples A to C
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbccceddd"], 0.692),
        (["123321412...", "1233224125.3", ".333234225 1.".replace(" ", ""), "12332441251."], 0.743),
    ],
)
def test_alpha_of_published_examples(raters: list[str], alpha: float) -> None:
    units = [[ord(value) for value in unit if value != "."] for unit in zip(*raters, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(alpha, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([[1, 1], [2, 2, 2], [1]]) == 1
    assert krippendorff_alpha([[1, 2], [2, 1], [1, 2], [2, 1]]) < 0  # type: ignore[operator]
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None  # nobody could have disagreed
    assert krippendorff_alpha([[1], [2]]) is None


def test_holm_steps_down_and_never_decreases() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# Coverage.


def simulated(
    random: np.random.Generator, mean: np.ndarray, of_raters: float, of_items: float, num_raters: int, num_items: int
) -> Votes:
    """Raters and items lean to systems of their own accord; a fifth of the answers are abstentions."""
    shape = (num_raters, num_items, len(mean))
    lean = random.normal(0, of_raters, (num_raters, 1, len(mean))) + random.normal(0, of_items, (1, *shape[1:]))
    chosen = (mean + lean + random.gumbel(size=shape)).argmax(axis=-1)
    rater, item = np.nonzero(random.random(shape[:2]) < 0.8)
    names = tuple("abcdef"[: len(mean)])
    shown = np.ones((len(rater), len(mean)), bool)
    people, things = tuple(map(str, range(num_raters))), tuple(map(str, range(num_items)))
    return Votes(names, people, things, rater, item, shown, chosen[rater, item])


def true_shares(mean: np.ndarray, of_raters: float, of_items: float) -> np.ndarray:
    """Over all raters and items that there could be."""
    noise = np.random.default_rng(3).normal(0, np.hypot(of_raters, of_items), (400_000, len(mean)))
    odds = np.exp(mean + noise)
    return (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)


@pytest.mark.parametrize(
    ("of_raters", "of_items", "num_raters", "num_items"), [(0.5, 0.5, 20, 15), (0.2, 1.0, 12, 20), (0.9, 0.2, 10, 12)]
)
def test_intervals_cover_the_winners_truth(of_raters: float, of_items: float, num_raters: int, num_items: int) -> None:
    random, mean = np.random.default_rng(20), np.array([0.6, 0.0, -0.3])
    shares = true_shares(mean, of_raters, of_items)
    apart = np.log(shares[0] / shares[1])
    covered = np.zeros(2)
    for _ in range(NUM_STUDIES):
        found = preferred(simulated(random, mean, of_raters, of_items, num_raters, num_items), 0.95, 300, 0)
        intervals = (found.shares[0], shares[0]), (found.differences[0].estimate, apart)
        covered += [interval.low <= truth <= interval.high for interval, truth in intervals]  # type: ignore[operator]
    assert ((covered / NUM_STUDIES >= 0.90) & (covered / NUM_STUDIES <= 0.98)).all(), covered / NUM_STUDIES


def test_equal_systems_differ_by_chance_alone() -> None:
    random = np.random.default_rng(12)
    p = [
        preferred(simulated(random, np.zeros(2), 0.5, 0.5, 16, 12), 0.95, 300, 0).differences[0].p_value
        for _ in range(NUM_STUDIES)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.09


def test_a_system_that_everybody_chose_has_an_interval_that_still_ends_below_one() -> None:
    votes = simulated(np.random.default_rng(0), np.array([50.0, 0.0]), 0, 0, 8, 8)
    share = preferred(votes, 0.95, 200, 0).shares[0]
    assert share.value == share.high == 1 and share.low is not None and 0.7 < share.low < 0.9


def test_one_rater_has_no_interval() -> None:
    found = preferred(simulated(np.random.default_rng(0), np.zeros(2), 0, 0, 1, 9), 0.95, 200, 0)
    assert found.shares[0].value is not None and found.shares[0].low is None and found.differences[0].p_value is None


# Files of answers.


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Path]]:
    """Three systems, six items, five careful raters who prefer the first, and one who clicks the damaged video."""
    folder, key = tmp_path_factory.mktemp("answers"), make_key(("a", "b", "c"), 6, questions=("quality", "overall"))
    weights = {"a": 4.0, "b": 1.0, "c": 1.0}
    paths = [
        write_answers(folder, key, f"rater {index}", careful(key, random_choice(index, weights))) for index in range(5)
    ]
    damaged = lambda trial, _: next(  # noqa: E731
        (key.videos[name].system for name in trial.videos if key.videos[name].is_damaged), "c"
    )
    return key, [*paths, write_answers(folder, key, "clicker", damaged)]


def test_who_fails_the_anchors_is_left_out_and_both_results_are_told(study: Any, tmp_path: Path) -> None:
    key, paths = study
    result = score(paths, key)
    out = [rater for rater in result.raters if rater.left_out]
    assert [rater.rater for rater in out] == ["clicker"] and out[0].anchors_failed == 1
    kept, everybody = result.kept[0], result.everybody[0]
    assert (kept.num_votes, everybody.num_votes) == (30, 36)
    assert sum(system.num_chosen for system in kept.systems) == 30
    assert everybody.systems[2].num_chosen == kept.systems[2].num_chosen + 6
    write_result(result, tmp_path)
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["kept"][0]["systems"][0]["share"]["value"] == kept.systems[0].share.value
    page = (tmp_path / "result.html").read_text()
    assert "clicker" in page and "http" not in page
    assert any("clicker" in line and "damaged" in line for line in table(result))


def test_the_order_of_files_does_not_matter(study: Any) -> None:
    key, paths = study
    assert score(paths[::-1], key) == score(paths, key)


def test_other_names_of_systems_permute_the_result(study: Any) -> None:
    key, paths = study
    before = score(paths, key).kept[1]
    for order in permutations(key.systems):
        after = score(paths, replace(key, systems=order)).kept[1]
        by_name = {system.system: system for system in after.systems}
        for system in before.systems:
            assert by_name[system.system].num_chosen == system.num_chosen
            for name in ("share", "strength"):
                found, expected = getattr(by_name[system.system], name), getattr(system, name)
                assert (found.value, found.low, found.high) == pytest.approx(
                    (expected.value, expected.low, expected.high), abs=1e-8
                )
        assert after.alpha == before.alpha


def test_where_all_abstain_there_is_no_number(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4)
    paths = [write_answers(tmp_path, key, name, lambda trial, question: None) for name in ("one", "two")]
    result = score(paths, key)
    for question in result.kept:
        assert (question.num_votes, question.num_abstained, question.num_missing) == (0, 8, 0)
        assert question.alpha is None and all(system.share.value is None for system in question.systems)
        assert all(pair.p_holm is None for pair in question.pairs)
    write_result(result, tmp_path)
    json.loads((tmp_path / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert any("no figure" in line for line in table(result))


def test_incomplete_answers_count_as_far_as_they_go_and_gaps_are_told(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4, anchors=0, questions=("motion", "overall"))
    told = answers(key, "half", lambda trial, question: "a")
    told["answers"] = told["answers"][:1]
    del told["answers"][0]["choices"]["overall"]
    path = tmp_path / "half.json"
    path.write_text(json.dumps(told))
    result = score([path], key)
    motion, overall = result.kept
    assert (motion.num_votes, motion.num_missing, overall.num_votes, overall.num_missing) == (1, 3, 0, 4)
    assert len(motion.items_without_votes) == 3 and len(overall.items_without_votes) == 4
    assert any("half" in line and "finished" in line for line in table(result))


def test_two_systems_win_tie_and_lose_items(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 3, anchors=0, questions=("overall",))
    first = {"item 0": "a", "item 1": "a", "item 2": "b"}
    second = {"item 0": "a", "item 1": "b", "item 2": None}
    paths = [
        write_answers(tmp_path, key, name, lambda trial, _, by_item=by_item: by_item[trial.item])
        for name, by_item in (("one", first), ("two", second))
    ]
    tally = score(paths, key).kept[0].items
    assert tally and (tally.won, tally.tied, tally.lost) == (1, 1, 1)


def test_repeats_answered_otherwise_leave_a_rater_out_where_the_rule_says_so(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4, anchors=0)
    told = answers(key, "fickle", lambda trial, question: "a")
    told["answers"][-1]["choices"] = {
        question: next(name for name in told["answers"][-1]["shown"] if key.videos[name].system == "b")
        for question in key.questions
    }
    path = tmp_path / "fickle.json"
    path.write_text(json.dumps(told))
    assert score([path], key).raters[0].repeats_agreed == 0 and not score([path], key).raters[0].left_out
    strict = replace(key, rules=Rules(least_repeats_agreed=0.5))
    assert "alike" in score([path], strict).raters[0].left_out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_pairs_of_many_systems_give_shares_of_the_trials_that_showed_them(seed: int) -> None:
    key = make_key(("a", "b", "c"), 3, side_by_side=2, anchors=0, questions=("overall",))
    random = np.random.default_rng(seed)
    files = [
        answers(key, str(rater), lambda trial, _: key.videos[trial.videos[random.integers(2)]].system)
        for rater in range(3)
    ]
    result = _score_in_memory(files, key)
    systems = result.kept[0].systems
    assert [system.num_shown for system in systems] == [18, 18, 18]
    assert sum(system.num_chosen for system in systems) == 27
    assert sum(system.strength.value or 0 for system in systems) == pytest.approx(0, abs=1e-9)


def _score_in_memory(files: list[dict[str, Any]], key: Any) -> StudyResult:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.json" for index in range(len(files))]
        for path, told in zip(paths, files, strict=True):
            path.write_text(json.dumps(told))
        return score(paths, key)


# What cannot be scored.


def _twice(told: dict[str, Any]) -> None:
    told["answers"].append(told["answers"][0])


def _other_video(told: dict[str, Any]) -> None:
    told["answers"][0]["choices"]["overall"] = "another"


def _other_trial(told: dict[str, Any]) -> None:
    told["answers"][0]["trial"] = "another"


def _other_question(told: dict[str, Any]) -> None:
    told["answers"][0]["choices"]["beauty"] = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told.update(study="0" * 64), "another study"),
        (lambda told: told.update(rater="stranger"), "'stranger' is not in the study; known are anna, bert"),
        (lambda told: told.pop("answers"), "no file of answers"),
        (_twice, "answered twice"),
        (_other_video, "none of the videos shown"),
        (_other_trial, "does not show"),
        (lambda told: told["answers"][0].update(shown=[["x"], None]), "does not show"),
        (lambda told: told["answers"][0].update(choices={"overall": {}}), "none of the videos shown"),
        (_other_question, "does not ask beauty"),
    ],
)
def test_a_file_that_cannot_be_is_named(change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4, raters=("anna", "bert"))
    told = answers(key, "anna", lambda trial, question: "a")
    change(told)
    path = tmp_path / "sent.json"
    path.write_text(json.dumps(told))
    with pytest.raises(UserError, match=said) as raised:
        score([path], key)
    assert str(path) in str(raised.value)


def test_one_rater_in_two_files_names_both(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4)
    path = write_answers(tmp_path, key, "anna", lambda trial, question: "a")
    other = tmp_path / "copy of answers.json"
    other.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="rater 'anna' answered in") as raised:
        score([path, other], key)
    assert str(path) in str(raised.value) and str(other) in str(raised.value)
    with pytest.raises(UserError, match="rater 'anna' answered in"):
        score([path, path], key)


def test_the_command_line_refuses_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = str(tmp_path / "none.json")
    assert cli.main(["study", "score", nothing, "--key", nothing]) == 2
    assert "study make" in capsys.readouterr().err
    key_file = tmp_path / "key.json"
    make_key(("a", "b"), 4).save(key_file)
    assert cli.main(["study", "score", str(key_file), "--key", str(key_file)]) == 2
    assert "no file of answers" in capsys.readouterr().err
