"""Composition: what is refused and how, that every file composes, and that a stale params.yaml is found."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.config.compose import compose, dump, stale_keys
from omnihuman.config.load import load_params, load_section, read_yaml
from omnihuman.errors import UserError
from omnihuman.nested import leaves

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.glob("*/*.yaml"))
PROFILES = sorted(path.stem for path in CONF.glob("profile/*.yaml"))


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_composes_and_reads_back_the_same(profile: str, tmp_path: Path) -> None:
    params = compose(profile, conf=CONF)
    path = tmp_path / "params.yaml"
    path.write_text(dump(params), encoding="utf-8")
    assert load_params(path) == params
    assert stale_keys(path, CONF) == []
    assert list(params.stages) == ["1_text_image", "2_audio", "3_pose"]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name not in ("ablation", "profile", "protocol", "stage")], ids=named
)
def test_every_group_file_composes(path: Path) -> None:
    choice = f"groups.{path.parent.name}={path.stem}"
    params = compose("tiny", [choice], CONF)
    assert list(params.overrides) == [choice]
    assert list(params.stages) == ["1_text_image", "2_audio", "3_pose"]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_opens_with_what_it_is_for_and_what_it_costs(path: Path) -> None:
    first, second, third = (path.read_text(encoding="utf-8") + "\n\n").splitlines()[:3]
    assert first.startswith("# ") and second.startswith("# ") and not third.startswith("#")


def test_params_have_neither_null_nor_interpolation() -> None:
    text = dump(compose("demo", conf=CONF))
    assert "null" not in text and "${" not in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encode.num_framse=17", ["unknown key encode.num_framse", "encode.num_frames?"]),
        ("training.learning_rate=1", ["unknown key training.learning_rate", "stages.NAME.learning_rate?"]),
        ("stages.2_audoi.steps=3", ["unknown key stages.2_audoi", "stages.2_audio?"]),
        ("groups.recipe=paper_frist", ["unknown recipe 'paper_frist'", "paper_halved", "paper_first?"]),
        ("groups.model=huge", ["unknown model 'huge'", "demo, motif_2b, study, tiny"]),
        ("encode.num_frames=abc", ["encode.num_frames", "'abc'", "a whole number"]),
        ("encode.num_frames=17.5", ["encode.num_frames", "17.5", "a whole number"]),
        ("encode.fps=true", ["encode.fps", "True", "a number"]),
        ("encode.fps=.nan", ["encode.fps", "nan", "a number"]),
        ("seed=null", ["seed", "None", "a whole number"]),
        ("stages.2_audio.parent=[a]", ["stages.2_audio.parent", "text or nothing"]),
        ("model.rope_axes=[16, 16]", ["model.rope_axes", "a list of 3"]),
        ("encode=3", ["encode is 3", "a section"]),
        ("model.rope_axes=[8", ["not YAML"]),
        ("seed", ["key=value"]),
        ("collect.depends_on=src", ["collect.depends_on", "set by composition"]),
        ("render.crf=${seed}", ["render.crf"]),
        ("encode.speech_weights=${seed}", ["encode.speech_weights", "write the value out"]),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(override: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose("demo", [override], CONF)
    assert all(part in str(caught.value) for part in said), str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encode.num_frames=16", ["encode.num_frames is 16", "17"]),
        ("encode.size_multiple=12", ["encode.size_multiple is 12", "multiple of 8"]),
        ("encode.resolutions=[10]", ["encode.resolutions is [10]", "64"]),
        ("encode.resolutions=[]", ["encode.resolutions is []", "at least one"]),
        ("encode.resolutions=[4096, 1024]", ["encode.resolutions is [4096, 1024]", "from low to high"]),
        (
            "stages.3_pose.phases={a: {area_pixels: 1024}}",
            ["stages.3_pose.phases.a.area_pixels is 1024", "encode.resolutions ([4096])"],
        ),
        (
            "encode.speech_encoder=wav2vec2",
            ["encode.speech_weights is empty", "facebook/wav2vec2", "log_mel"],
        ),
        ("encode.video_codec=wan", ["encode.video_weights is empty", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "cosine"]),
        ("encode.text_encoder=t5gemma2", ["encode.text_weights is empty", "Motif-Technologies/", "hashed_words"]),
        ("encode.text_encoder=t6", ["encode.text_encoder", "'t6'", "hashed_words, t5, t5gemma2"]),
        ("encode.speech_weights=a/b", ["encode.speech_weights is a/b", "log_mel has no weights", "whisper"]),
        ("encode.video_tile_pixels=100", ["encode.video_tile_pixels is 100", "multiple of 8"]),
        ("encode.video_tile_stride_pixels=512", ["encode.video_tile_stride_pixels is 512", "gaps", "(256)"]),
        ("encode.video_tiling=true", ["encode.video_tiling is on", "cosine"]),
        ("score.pose_weights=/dwpose", ["encode.pose_weights is empty", "/dwpose", "set both"]),
        ("caption.method=llava", ["caption.method: unknown 'llava'", "none, template, blip"]),
        ("sampling.guidance_end=1.5", ["sampling.guidance_end is 1.5", "must not rise", "guidance_text (1)"]),
        ("sampling.shift=0", ["sampling.shift is 0", "1 for none"]),
        ("model.patch_size=2", ["encode.size_multiple is 8", "multiple of 16"]),
        ("model.rope_axes=[8, 12, 14]", ["model.rope_axes is [8, 12, 14]", "= 32"]),
        ("model.rope_axes=[9, 11, 12]", ["model.rope_axes is [9, 11, 12]", "even"]),
        ("model.num_heads=7", ["model.width is 160", "model.num_heads (7)"]),
        ("collect.test_share=1", ["collect.test_share is 1.0"]),
        ("collect.synthetic.unfit_share=1.2", ["collect.synthetic.unfit_share is 1.2"]),
        ("stages.2_audio.mix.audio_eligible=-1", ["stages.2_audio.mix.audio_eligible is -1.0"]),
        ("split.min_clip_seconds=9", ["split.min_clip_seconds is 9.0", "6.0"]),
        ("stages.3_pose.activate.pose=0.95", ["activate.pose is 0.95", "activate.audio (0.85)"]),
        ("stages.2_audio.activate.reference=0.99", ["activate.reference is 0.99", "activate.text (0.98)"]),
        ("stages.3_pose.activate.pose=0.95", ["or stages.3_pose.allow_stronger_more=true"]),
        ("stages.3_pose.guidance_dropout.everything=1.2", ["guidance_dropout.everything is 1.2", "between 0 and 1"]),
        ("stages.3_pose.data.text_only_fraction=-1", ["data.text_only_fraction is -1.0", "between 0 and 1"]),
        ("stages.3_pose.batching.sizes=all", ["stages.3_pose.batching.sizes", "'all'", "one_size, native"]),
        ("stages.3_pose.phases={low: {share: 0.5}}", ["stages.3_pose.phases", "= 0.5 of the steps", "add up to 1"]),
        ("stages.3_pose.phases={a: {num_frames: 8}}", ["phases.a.num_frames is 8", "4k + 1", "set 9"]),
        ("stages.3_pose.phases={a: {num_frames: 5}}", ["phases.a.num_frames is 5", "at least 9, or 1 for pictures"]),
        ("stages.3_pose.phases={a: {num_frames: 33}}", ["phases.a.num_frames is 33", "encoded with 17"]),
        (
            "stages.3_pose.phases={high: {share: 0.5}, low: {share: 0.5, area_pixels: 64}}",
            ["stages.3_pose.phases.low.area_pixels is 64", "below that of high before it (no limit)", "swap"],
        ),
        ("stages.1_text_image.activate.audio=0.1", ["activate.audio is 0.1", "introduces"]),
        ("stages.3_pose.parent=4_hands", ["stages.3_pose.parent is 4_hands", "2_audio"]),
        ("stages.2_audio.parent=3_pose", ["stages.2_audio.parent is 3_pose", "circle"]),
        ("stages.3_pose.parent=null", ["only 1_text_image starts without a parent"]),
        ("compute.accumulate=3", ["compute.accumulate is 3", "divisor of training.global_batch_size (8)"]),
        ("compute.loader_workers=-1", ["compute.loader_workers is -1", "0 or above"]),
        ("compute.accumulate=0", ["compute.accumulate is 0", "at least 1"]),
        ("training.optimizer=adam", ["training.optimizer", "'adam'", "adamw, muon"]),
        ("training.precision=bf16-true", ["training.precision", "'bf16-true'", "bf16-mixed"]),
        ("stages.1_text_image.steps=0", ["stages.1_text_image.steps is 0"]),
        ("render.chaining=file", ["render.chaining", "'file'", "decoded_frames, latent_stream"]),
        ("render.keep_colour=1.5", ["render.keep_colour is 1.5", "between 0 and 1"]),
    ],
)
def test_a_broken_rule_names_key_value_and_remedy(override: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose("demo", [override], CONF)
    assert all(part in str(caught.value) for part in said), str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["training.midstream_share=0.5", "stages.3_pose.phases={a: {num_frames: 9}}"],
            ["stages.3_pose.phases.a.num_frames is 9", "at least 13", "training.midstream_share=0"],
        ),
        (
            ["render.chaining=latent_stream", "render.keep_colour=0.5"],
            ["render.keep_colour", "render.chaining=latent_stream", "set it to 0"],
        ),
    ],
)
def test_two_keys_that_do_not_go_together_are_both_named(overrides: list[str], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose("demo", overrides, CONF)
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_the_flag_lets_a_violation_pass() -> None:
    flag = "stages.3_pose.allow_stronger_more=true"
    assert compose("demo", ["stages.3_pose.activate.pose=0.95", flag], CONF).stages["3_pose"].activate.pose == 0.95


def test_an_unknown_profile_is_refused_with_the_list() -> None:
    with pytest.raises(UserError, match=r"unknown profile 'tny', one of demo, study, tiny.*; did you mean tiny"):
        compose("tny", conf=CONF)


def test_overrides_win_over_the_profile_and_the_later_over_the_earlier() -> None:
    params = compose("tiny", ["stages.2_audio.learning_rate=1e-3", "seed=1", "seed=2"], CONF)
    assert params.stages["2_audio"].learning_rate == 0.001
    assert params.stages["2_audio"].steps == compose("tiny", conf=CONF).stages["2_audio"].steps
    assert params.seed == 2
    assert params.model.rope_axes == (8, 12, 12) and params.stages["2_audio"].introduces == ("audio",)


def test_another_recipe_changes_the_ratios_only() -> None:
    one, other = (asdict(compose("demo", [f"groups.recipe=paper_{name}"], CONF)) for name in ("first", "last"))
    changed = {key for key in one if one[key] != other[key]}
    assert changed == {"overrides", "stages"}
    assert other["stages"]["3_pose"]["activate"] == {"text": 0.9, "reference": 0.7, "audio": 0.5, "pose": 0.25}


def test_a_folder_of_videos_needs_rights_and_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'it\'s: "mine" é'
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    source = f"collect.source={folder.name}"
    with pytest.raises(UserError) as caught:
        compose("demo", [source, "collect.licence=unknown"], CONF)
    assert "collect.consent_basis=..." in str(caught.value) and "collect.licence=..." not in str(caught.value)
    rights = ["collect.licence=unknown", "collect.consent_basis=unknown", "collect.rights_holder=unknown"]
    params = compose("demo", [source, *rights], CONF)
    assert params.collect.source == params.collect.depends_on == str(folder)
    path = tmp_path / "params.yaml"
    path.write_text(dump(params), encoding="utf-8")
    monkeypatch.chdir(tmp_path.parent)
    assert stale_keys(path, CONF) == []
    folder.rmdir()
    with pytest.raises(UserError, match="no such folder"):
        stale_keys(path, CONF)


def test_a_stale_file_is_found_by_key(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    path = tmp_path / "params.yaml"
    path.write_text(dump(compose("demo", ["seed=3"], conf)), encoding="utf-8")
    tiny = conf / "model" / "demo.yaml"
    tiny.write_text(tiny.read_text().replace("num_single_blocks: 4", "num_single_blocks: 5"))
    assert stale_keys(path, conf) == ["model.num_single_blocks: 4 in " + str(path) + ", 5 when composed"]
    path.write_text(path.read_text().replace("crf: 16", "crf: 17"))
    assert len(stale_keys(path, conf)) == 2


def test_reading_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = dump(compose("tiny", conf=CONF))
    for wrong, said in [
        (text + "sede: 3\n", "unknown key sede; did you mean seed"),
        (text + "seed: 3\n", "cannot be read as YAML"),
        (text.replace("\nsplit:", "\nsplit.min_clip_seconds: 1\nsplit:"), "unknown key split.min_clip_seconds"),
        (text.replace("num_frames: 17", "num_frames: 18"), "4k \\+ 1"),
        ("- 1\n", "no `key: value` lines"),
        ("seed: 3\n", "profile"),
    ]:
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            load_params(path)
    with pytest.raises(UserError, match="run this in the project's folder"):
        load_params(tmp_path / "absent.yaml")


def test_a_section_is_read_by_its_dotted_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params = compose("tiny", conf=CONF)
    path.write_text(dump(params), encoding="utf-8")
    assert load_section(path, "collect") == params.collect
    assert load_section(path, "stages.2_audio.activate") == params.stages["2_audio"].activate
    with pytest.raises(UserError, match="1_text_image, 2_audio, 3_pose"):
        load_section(path, "stages.4_hands")
    with pytest.raises(UserError, match="did you mean collect"):
        load_section(path, "colect")


OVERRIDES = st.lists(
    st.one_of(
        st.integers(0, 2**31).map("seed={}".format),
        st.integers(2, 40).map(lambda k: f"encode.num_frames={4 * k + 1}"),
        st.floats(1e-9, 1e9).map("stages.2_audio.learning_rate={}".format),
        st.sampled_from(["groups.model=tiny", "groups.recipe=paper_halved", "stages.3_pose.mix.pose_eligible=null"]),
        st.text(st.characters(exclude_categories=["C"], exclude_characters="$"), max_size=20).map(
            "collect.licence={}".format
        ),
    ),
    max_size=4,
)


@settings(max_examples=25)
@given(overrides=OVERRIDES)
def test_composing_what_was_recorded_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, overrides: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    params = compose("tiny", overrides, CONF)
    path.write_text(dump(params), encoding="utf-8")
    assert load_params(path) == params
    assert read_yaml(path)["overrides"] == list(params.overrides)
    assert stale_keys(path, CONF) == []


@pytest.mark.parametrize("name", [b"nowhere.mp4", b"latin-\xe9.mp4"])
def test_files_at_which_dvc_would_stop_are_named(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    path = os.fsencode(folder) + b"/" + name
    if name.startswith(b"nowhere"):
        Path(os.fsdecode(path)).symlink_to("/no/such/file")
    else:
        Path(os.fsdecode(path)).write_bytes(b"")
    rights = ["collect.licence=own", "collect.consent_basis=contract", "collect.rights_holder=us"]
    with pytest.raises(UserError, match=r"remove it|rename it"):
        compose("tiny", [f"collect.source={folder}", *rights])


def test_leaves_are_named_by_their_way_down() -> None:
    tree = {"encode": {"fps": 25.0, "resolutions": (1024, 4096)}, "phases": {}, "seed": 1}
    assert dict(leaves(tree)) == {
        "encode.fps": 25.0, "encode.resolutions": (1024, 4096), "phases": {}, "seed": 1,
    }  # fmt: skip
    assert next(leaves(tree, "/")) == ("encode/fps", 25.0)
