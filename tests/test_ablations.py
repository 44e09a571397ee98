"""Files of conf/ablation: what is refused and how, and what those that are there ask."""

import shutil
from pathlib import Path

import pytest

from omnihuman.config.compose import compose, dump
from omnihuman.errors import UserError
from omnihuman.pipeline.ablations import Trial, load_ablation
from omnihuman.pipeline.visible_gpus import shares_of_gpus

CONF = Path(__file__).parents[1] / "conf"
NAMES = sorted(path.stem for path in CONF.glob("ablation/*.yaml"))
GOOD = """
seeds: [1, 2]
reference: a
common: [groups.recipe=paper_first]
arms: {a: [seed=1], b: [seed=2]}
claims:
  first: {says: so, arm: b, metric: sync, change: lower, margin: 0.1}
"""


def load(tmp_path: Path, text: str):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "ablation/odd.yaml").write_text(text)
    return load_ablation("odd", "tiny", conf)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("arms:", "amrs:", "unknown key amrs; did you mean arms?"),
        ("seeds: [1, 2]", "", "seeds is missing"),
        ("seeds: [1, 2]", "seeds: [1, x]", "seeds is [1, 'x'], expected a list"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seeds is [1, 1]: name at least one, each once"),
        ("seeds: [1, 2]", "seeds: []", "seeds is []: name at least one"),
        ("seeds: [1, 2]", "seeds: [-1]", "a seed is 0 or above"),
        ("reference: a", "reference: c", "reference is 'c': no such arm, one of a, b"),
        ("{a: [seed=1], b: [seed=2]}", "{}", "at least two lines"),
        ("b: [seed=2]", "B-2: [seed=2]", "'B-2'; use small letters"),
        ("b: [seed=2]", "b: seed=2", "arms.b is 'seed=2', expected a list"),
        ("b: [seed=2]", "b: [sede=2]", "arms.b: sede=2: unknown key sede; did you mean seed?"),
        ("b: [seed=2]", "b: [stages.2_audio.mix.audio_eligible=2]", "a share lies between 0 and 1"),
        ("b: [seed=2]", "b: [seed=2], c: [seed=1]", "arms.c is the same setting as arms.a"),
        ("b: [seed=2]", "b: [training.seed=2]", "the seeds of all arms stand in `seeds`"),
        ("claims:\n  first: {", "claims:\n  first: {colour: red, ", "unknown key claims.first.colour"),
        ("margin: 0.1", "margni: 0.1", "unknown key claims.first.margni; did you mean claims.first.margin?"),
        (", margin: 0.1", "", "claims.first.margin is missing"),
        ("margin: 0.1", "margin: much", "margin is 'much', expected a number"),
        ("margin: 0.1", "margin: -0.1", "how much counts is not negative"),
        ("change: lower, margin: 0.1", "change: not_lower, margin: 0", "say above it how much worse"),
        ("change: lower", "change: down", "'down', expected one of lower, higher, not_lower, not_higher"),
        ("arm: b", "arm: c", "claims.first.arm is 'c': no such arm"),
        ("arm: b", "arm: a", "a is held against itself"),
        ("arm: b", "against: c, arm: b", "claims.first.against is 'c'"),
        ("  first: {", "  first: so\n  other: {", "claims.first is 'so', expected a section"),
    ],
)
def test_a_wrong_file_is_one_message(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert said in str(error.value) and "conf/ablation/odd.yaml" in str(error.value)


def test_an_unknown_ablation_names_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"unknown ablation 'audio_mxi', one of audio_mix, condition_order"):
        load_ablation("audio_mxi", "tiny", CONF)


def test_trials_come_seed_by_seed_with_what_is_common(tmp_path: Path) -> None:
    ablation = load(tmp_path, GOOD)
    assert [trial.label for trial in ablation.trials] == ["a seed 1", "b seed 1", "a seed 2", "b seed 2"]
    assert ablation.trials[3].overrides == ("groups.recipe=paper_first", "seed=2", "training.seed=2")


def test_the_key_of_the_claims_changes_with_them_and_with_nothing_else(tmp_path: Path) -> None:
    keys = [
        load(tmp_path / str(number), text).claims_key
        for number, text in enumerate((GOOD, GOOD.replace("[1, 2]", "[1, 2, 3]"), GOOD.replace("0.1", "0.2")))
    ]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", ["tiny", "demo", "study"])
def test_every_ablation_composes(name: str, profile: str) -> None:
    ablation = load_ablation(name, profile, CONF)
    assert ablation.claims and len(ablation.seeds) >= (5 if name == "audio_mix" else 3)


def different(name: str) -> set[str]:
    """Lines of params.yaml in which the arms of an ablation differ, without keys that say where a line stands."""
    trials = [Trial(arm, 1) for arm in load_ablation(name, "study", CONF).arms]
    texts = [set(dump(compose("study", trial.overrides, CONF)).splitlines()) for trial in trials]
    lines = set.union(*texts) - set.intersection(*texts)
    return {line.strip() for line in lines if not line.startswith("- ")}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("audio_mix", {"audio_eligible"}),
        ("pose_ratio", {"pose", "allow_stronger_more"}),
        ("reference_ratio", {"reference", "allow_stronger_more"}),
        ("text_share", {"text_only_fraction"}),
        ("guidance", {"guidance_annealing"}),
    ],
)
def test_arms_differ_in_their_question_and_in_nothing_else(name: str, keys: set[str]) -> None:
    assert {line.partition(":")[0] for line in different(name)} == keys


def test_the_order_of_conditions_is_the_order_of_training() -> None:
    arms = {
        arm.name: compose("study", arm.overrides, CONF) for arm in load_ablation("condition_order", "study", CONF).arms
    }
    first, last = arms["audio_then_pose"], arms["pose_then_audio"]
    assert list(first.stages) == ["1_text_image", "2_audio", "3_pose"] and first.evaluate.model == "models/3_pose"
    assert list(last.stages) == ["1_text_image", "3_pose", "2_audio"] and last.evaluate.model == "models/2_audio"
    assert last.stages["2_audio"].activate == first.stages["3_pose"].activate, "both end with the same ratios"
    assert last.stages["2_audio"].mix == first.stages["3_pose"].mix
    assert last.stages["2_audio"].steps == first.stages["3_pose"].steps, "and with as many steps"


def test_seeds_share_their_data_and_what_they_are_measured_on() -> None:
    one, two = (compose("study", [f"training.seed={seed}"], CONF) for seed in (1, 2))
    assert one.seed == two.seed and (one.training_seed, two.training_seed) == (1, 2)
    assert compose("study", conf=CONF).training_seed == one.seed


@pytest.mark.parametrize(
    ("runs", "visible", "shares"),
    [
        (2, "0,1,2,3", ["0,2", "1,3"]),
        (3, "4,5", ["4", "5", "4"]),
        (2, "GPU-aa", ["GPU-aa", "GPU-aa"]),
        (2, "", [None, None]),
    ],
)
def test_gpus_are_shared_between_runs(runs: int, visible: str, shares: list[str | None]) -> None:
    found = shares_of_gpus(runs, {"CUDA_VISIBLE_DEVICES": visible})
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in found] == shares
