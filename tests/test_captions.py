"""Captions: the sidecar's, a sentence made of scores, and a tiny BLIP in the published layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_checkpoints import WORDS, save_blip

from omnihuman.config.schema.caption import Caption
from omnihuman.data.captions import caption, describe
from omnihuman.data.manifest import CLIPS, SCORES, SOURCES, read_table, write_table
from omnihuman.data.material import Material, holding
from omnihuman.encoders.captioner import BLIP, Blip
from omnihuman.encoders.weights import find_weights, pinned_weights
from omnihuman.errors import UserError
from omnihuman.media.video import read_frames
from omnihuman.media.write import write_video


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos: one with a caption in its sidecar, one without, one that is no video; and a clip of no use."""
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMNIHUMAN_WORKERS", "1")
    random, sources, clips, scores = np.random.default_rng(0), [], [], []
    for index, stated in enumerate(("a red shirt", "", "", "")):
        write_video(tmp_path / f"v{index}.mp4", random.integers(0, 255, (12, 48, 48, 3), np.uint8), 25.0, None)
        row = {"source_id": f"v{index}", "path": f"v{index}.mp4", "keypoints_path": "", "caption": stated}
        sources.append({field.name: None for field in SOURCES} | row)
        status = "ok" if index < 3 else "error"
        clip = {"clip_id": f"c{index}", "source_id": f"v{index}", "index": 0, "status": status, "error": ""}
        clips.append(clip | {"start_seconds": 0.0, "end_seconds": 0.48})
        for name, value in (("face_size", 0.3), ("motion", 0.02), ("speech_presence", 0.9)):
            scores.append({"clip_id": f"c{index}", "scorer": name, "value": value, "status": "ok"})
    (tmp_path / "v2.mp4").write_bytes(b"no video")
    write_table(sources, SOURCES, tmp_path / "sources.parquet")
    write_table(clips, CLIPS, tmp_path / "clips.parquet")
    write_table(scores, SCORES, tmp_path / "scores.parquet")
    return tmp_path


def run(folder: Path, config: Caption) -> list[dict]:
    caption(config, folder, folder / "clips.parquet", folder / "scores.parquet", folder / "captions.parquet")
    return read_table(folder / "captions.parquet").to_dict("records")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Caption:
    folder = tmp_path_factory.mktemp("blip")
    save_blip(folder)
    return Caption("blip", str(folder), find_weights(str(folder), BLIP).sha256(), max_tokens=5, short_side_pixels=48)


def test_by_default_only_the_sidecar_speaks(folder: Path) -> None:
    rows = run(folder, Caption())
    assert [(row["clip_id"], row["caption"], row["origin"]) for row in rows] == [
        ("c0", "a red shirt", "sidecar"),
        ("c1", "", "none"),
        ("c2", "", "none"),
    ]


def test_a_template_says_what_was_measured(folder: Path) -> None:
    rows = run(folder, Caption("template"))
    assert [row["caption"] for row in rows[:2]] == [
        "a red shirt",
        "a head-and-shoulders shot of a person, moving a little, with speech",
    ]
    assert rows[1]["origin"] == "template" and rows[1]["status"] == "ok"


def test_sentences() -> None:
    assert describe({}) == "a shot without a visible face"
    assert describe({"face_size": 0.5, "motion": 0.2, "brightness": 0.1}) == (
        "a close-up of a person, moving a lot, in the dark"
    )
    assert describe({"face_size": 0.05, "num_faces": 2.0, "motion": 0.0, "speech_presence": 0.1}) == (
        "a full-body shot of several people, hardly moving"
    )


def test_a_network_sees_the_picture_and_says_what_transformers_says(blip: Caption) -> None:
    from transformers import BlipForConditionalGeneration, BlipImageProcessorPil

    captioner = Blip(pinned_weights(blip.weights, BLIP, blip.weights_sha256), max_tokens=5)
    network = BlipForConditionalGeneration.from_pretrained(blip.weights).eval()
    prepare, said = BlipImageProcessorPil(size={"height": 32, "width": 32}), set()
    for seed in range(8):
        coarse = np.random.default_rng(seed).integers(0, 255, (2, 3, 3), np.uint8)
        picture = coarse.repeat(20, axis=0).repeat(20, axis=1)
        pixels = prepare(images=[picture], return_tensors="pt").pixel_values
        with torch.inference_mode():
            ids = network.generate(pixel_values=pixels, max_new_tokens=5, do_sample=False, num_beams=1)[0]
        expected = " ".join(WORDS[token] for token in ids if token > 3)
        assert captioner.caption(picture) == expected
        said.add(expected)
    assert len(said) > 1, "pictures make a difference"


@pytest.mark.slow
def test_a_network_captions_what_the_sidecar_does_not_and_never_twice(folder: Path, blip: Caption) -> None:
    first = run(folder, blip)
    frame = read_frames(folder / "v1.mp4", fps=25.0, short_side_pixels=48).pixels[6]
    expected = Blip(pinned_weights(blip.weights, BLIP, blip.weights_sha256), max_tokens=5).caption(frame)
    assert (first[0]["caption"], first[0]["weights_sha256"]) == ("a red shirt", "")
    assert (first[1]["caption"], first[1]["origin"]) == (expected, "blip")
    assert first[1]["weights_sha256"] == blip.weights_sha256
    assert (first[2]["caption"], first[2]["status"]) == ("", "error") and first[2]["error"]
    (folder / "v1.mp4").unlink()
    assert run(folder, blip) == first
    assert list(holding(Material(ids={"v1"}), [folder / "home"])), (
        "a takedown finds what is kept without a table of clips"
    )


def test_weights_that_are_missing_or_others_are_refused(folder: Path, blip: Caption) -> None:
    with pytest.raises(UserError, match=r"caption\.weights is empty.*BSD-3-Clause"):
        run(folder, Caption("blip"))
    with pytest.raises(UserError, match=r"caption\.weights_sha256 says 0"):
        run(folder, Caption("blip", blip.weights, "0"))
