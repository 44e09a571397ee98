"""Writing blind studies: nothing tells a system, all videos are alike, and what cannot be compared is refused."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from tests.study_fixtures import make_key, write_clip, write_systems

from omnihuman import cli
from omnihuman.errors import UserError
from omnihuman.evaluation.study.description import Description, check, read_description
from omnihuman.evaluation.study.key import Key, key_path
from omnihuman.evaluation.study.make import make
from omnihuman.evaluation.study.plan import plan
from omnihuman.evaluation.study.texts import QUESTIONS, TEXTS
from omnihuman.media.probe import probe
from omnihuman.media.video import read_frames

SYSTEMS, ITEMS = ("system-ours", "system-theirs"), ("item-anna", "item-bert", "item-carl")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_systems(folder, SYSTEMS, ITEMS)
    # Another size of the same shape, and another number of frames.
    write_clip(folder / SYSTEMS[1] / f"{ITEMS[2]}.mp4", 90, num_frames=16, size=(192, 128))
    (folder / "pictures").mkdir()
    for item in ITEMS:
        Image.new("RGB", (900, 600), "red").save(folder / "pictures" / f"{item}.png")
    return folder


def description(videos: Path, **changes: object) -> Description:
    systems = {system: str(videos / system) for system in SYSTEMS}
    return replace(Description(systems=systems, repeats=1, anchors=2), **changes)


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    folder = tmp_path_factory.mktemp("made") / "study"
    key = make(description(videos, references=str(videos / "pictures"), language="de", texts=dict(TEXTS["en"])), folder)
    return folder, Key.load(key)


def test_nothing_that_is_published_names_a_system_or_an_item(made: tuple[Path, Key]) -> None:
    folder, key = made
    assert not key_path(folder).is_relative_to(folder) and sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "media",
    ]
    for path in folder.rglob("*"):
        told = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [name for name in (*SYSTEMS, *ITEMS, key.secret) if name.encode() in told]
    assert sorted(path.stem for path in (folder / "media").glob("*.mp4")) == sorted(key.videos)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "http" not in page and "//" not in re.sub(r"(^|\s)//.*", "", page)  # no address; comments of scripts
    assert '<html lang="de">' in page and '"always": true' not in page


def test_all_videos_of_an_item_are_alike_but_for_their_pictures(made: tuple[Path, Key]) -> None:
    folder, key = made
    for item in ITEMS:
        told = set()
        for name, video in key.videos.items():
            if video.item == item:
                path = folder / "media" / f"{name}.mp4"
                with av.open(str(path)) as container:
                    profile = container.streams.video[0].profile
                told.add((profile, probe(path)))
        assert len(told) == 1, told
        (_, shown) = told.pop()
        larger = item == ITEMS[2]
        assert (shown.width, shown.height, shown.num_frames) == ((128, 192, 15) if larger else (64, 96, 15))
        assert shown.video_codec == "h264" and shown.audio_sample_rate == 48000


def test_an_anchor_has_lost_what_its_original_shows(made: tuple[Path, Key]) -> None:
    folder, key = made
    sharpness = {}
    for name, video in key.videos.items():
        frame = read_frames(folder / "media" / f"{name}.mp4", fps=25.0).pixels[3]
        sharpness[video] = cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
    damaged = [video for video in sharpness if video.is_damaged]
    assert len(damaged) == 2
    assert all(sharpness[video] < 0.1 * sharpness[replace(video, is_damaged=False)] for video in damaged)
    for trial in key.trials.values():
        assert sum(key.videos[name].is_damaged for name in trial.videos) == trial.is_anchor


def test_pictures_of_the_people_are_shown_small(made: tuple[Path, Key]) -> None:
    folder, _ = made
    pictures = list((folder / "media").glob("*.jpg"))
    assert len(pictures) == len(ITEMS) and Image.open(pictures[0]).size == (512, 341)


def test_the_hash_is_of_what_is_published(made: tuple[Path, Key]) -> None:
    folder, key = made
    embedded = re.search(
        r'<script type="application/json" id="study">(.*?)</script>', (folder / "index.html").read_text()
    )
    assert embedded and json.loads(embedded[1])["study"] == key.study


def test_every_set_is_a_trial_of_each_item_and_anchors_take_turns() -> None:
    key = make_key(("a", "b", "c", "d"), 5, side_by_side=2, anchors=4)
    plain = [trial for trial in key.trials.values() if not trial.is_anchor]
    shown = Counter(frozenset(key.videos[name].system for name in trial.videos) for trial in plain)
    assert len(shown) == 6 and set(shown.values()) == {5}
    assert list(key.trials) == sorted(key.trials) and all(list(t.videos) == sorted(t.videos) for t in plain)


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    key = make_key(("a", "b"), 4)
    key.save(tmp_path / "key.json")
    assert Key.load(tmp_path / "key.json") == key


def test_other_secrets_hide_under_other_names() -> None:
    asked = Description(systems={"a": "", "b": ""}, repeats=1, anchors=1)
    first, second = (plan(asked, ["x", "y"], secret)[0] for secret in ("one", "two"))
    assert not set(first) & set(second)


# What cannot be compared.


def test_videos_of_one_item_that_differ_are_all_named(videos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_clip(other / f"{ITEMS[0]}.mp4", 50, num_frames=25)
    write_clip(other / f"{ITEMS[1]}.mp4", 50, size=(64, 96))
    write_clip(other / f"{ITEMS[2]}.mp4", 50, sound=False)
    study = description(videos, systems={"ours": str(videos / SYSTEMS[0]), "other": str(other)})
    with pytest.raises(UserError) as raised:
        make(study, tmp_path / "study")
    said = str(raised.value)
    assert "item-anna: lengths are ours 0.60 s, other 1.00 s" in said and "most_seconds_apart" in said
    assert "item-bert: shapes are ours 64 x 96, other 96 x 64" in said and "letterbox" in said
    assert "item-carl: no sound in other" in said
    assert not (tmp_path / "study").exists() and not key_path(tmp_path / "study").exists()


def test_the_same_file_of_two_systems_is_no_comparison(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for item in ITEMS:
        (tmp_path / "other" / f"{item}.mp4").write_bytes((videos / SYSTEMS[0] / f"{item}.mp4").read_bytes())
    study = description(videos, systems={"ours": str(videos / SYSTEMS[0]), "other": str(tmp_path / "other")})
    with pytest.raises(UserError, match="item-bert: ours and other are the same file"):
        make(study, tmp_path / "study")


def test_other_shapes_go_between_bars_where_that_is_asked_for(videos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_clip(other / f"{ITEMS[1]}.mp4", 50, size=(64, 96))
    systems = {"ours": str(videos / SYSTEMS[0]), "other": str(other)}
    study = description(videos, systems=systems, items=(ITEMS[1],), letterbox=True, repeats=0, anchors=0)
    key = Key.load(make(study, tmp_path / "study"))
    name = next(name for name, video in key.videos.items() if video.system == "other")
    frame = read_frames(tmp_path / "study" / "media" / f"{name}.mp4", fps=25.0).pixels[0]
    assert frame.shape == (96, 64, 3) and frame[:20].max() < 30 and frame[30:60].max() > 150


def test_a_second_study_does_not_take_the_place_of_one_with_answers(videos: Path, tmp_path: Path) -> None:
    key_path(tmp_path / "study").write_text("{}")
    with pytest.raises(UserError, match="answers may belong to it"):
        make(description(videos), tmp_path / "study")


def test_missing_items_and_broken_files_are_named(videos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_clip(other / f"{ITEMS[0]}.mp4", 50)
    study = description(videos, systems={"ours": str(videos / SYSTEMS[0]), "other": str(other)}, repeats=0, anchors=0)
    with pytest.raises(UserError, match=r"other has no item-bert\n  other has no item-carl"):
        make(study, tmp_path / "study")
    (other / f"{ITEMS[0]}.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"cannot be read\n  .*item-anna.mp4 "):
        make(replace(study, items=(ITEMS[0],)), tmp_path / "study")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"systems": {"one": "a"}}, "at least two"),
        ({"side_by_side": 3}, "side_by_side is 3"),
        ({"questions": ("beauty",)}, "known: identity, lip_sync"),
        ({"raters": ("anna", "anna")}, "raters: a value stands there twice"),
        ({"language": "de"}, "the language de is not translated"),
        ({"texts": {"stpo": "Halt"}}, "texts has stpo"),
        ({"repeats": -1}, "0 or more"),
        ({"fps": 0.0}, "fps is 0"),
        ({"crf": 52}, "crf is 52"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(replace(Description(systems={"a": "a", "b": "b"}), **changes), "study.yaml")


@pytest.mark.parametrize("name", ["anchors", "repeats", "trials_per_rater"])
def test_more_trials_than_there_are_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 9"):
        make_key(("a", "b"), 3, **{name: 9})


def test_the_file_is_read_strictly_and_its_paths_count_from_it(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "systems: {a: renders/a, b: /elsewhere/b}\nquestions: [quality]\nrules: {most_anchors_failed: 0.2}\n"
    )
    read = read_description(path)
    assert read.systems == {"a": str(tmp_path / "renders/a"), "b": "/elsewhere/b"}
    assert read.questions == ("quality",) and read.rules.most_anchors_failed == 0.2
    path.write_text("systems: {a: a, b: b}\nsidebyside: 2\n")
    with pytest.raises(UserError, match="unknown key sidebyside; did you mean side_by_side"):
        read_description(path)
    path.write_text("systems: {a: a, b: b}\nrules: {anchors: 1}\n")
    with pytest.raises(UserError, match="rules: unknown key anchors; did you mean most_anchors_failed"):
        read_description(path)


def test_the_example_of_the_how_to_is_a_study(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs/howto/study.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example
    (tmp_path / "study.yaml").write_text(example[1])
    assert len(read_description(tmp_path / "study.yaml").systems) == 3


def test_every_language_has_every_text() -> None:
    assert all(texts.keys() == TEXTS["en"].keys() and set(QUESTIONS) <= texts.keys() for texts in TEXTS.values())


def test_the_command_line_takes_folders_or_a_file(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", "make", "-o", str(tmp_path / "study")]) == 2
    assert "either" in capsys.readouterr().err
    path = tmp_path / "study.yaml"
    systems = {system: str(videos / system) for system in SYSTEMS}
    path.write_text(json.dumps({"systems": systems, "repeats": 0, "anchors": 1, "items": [ITEMS[0]]}))
    assert cli.main(["study", "make", str(path), "-o", str(tmp_path / "study")]) == 0
    assert "study.key.json" in capsys.readouterr().out
    assert len(list((tmp_path / "study/media").iterdir())) == 3
    assert np.isclose(Key.load(tmp_path / "study.key.json").rules.most_anchors_failed, 0.1)
