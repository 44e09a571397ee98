"""Scorers with published weights, on tiny networks in the published layouts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.test_pose_estimator import BOB, PERSON, write_detector, write_pose
from tests.tiny_checkpoints import save_clip
from tests.tiny_onnx import node, write_model

from omnihuman.batch import WHOLE_BODY_KEYPOINTS, Frames, Keypoints
from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.config.schema.score import Score
from omnihuman.data import scoring
from omnihuman.data.eligibility import decide_all, judge
from omnihuman.data.scorers.content import ClipContent, Scorer
from omnihuman.data.scorers.registry import check_weights, scorers_for
from omnihuman.encoders.aesthetics import Predictor
from omnihuman.encoders.pose_estimator import estimator_files
from omnihuman.encoders.weights import files_sha256
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256

PUBLISHED_PREDICTOR = {
    "layers.0.weight": (1024, 768), "layers.2.weight": (128, 1024), "layers.4.weight": (64, 128),
    "layers.6.weight": (16, 64), "layers.7.weight": (1, 16),
}  # fmt: skip
"""Of sac+logos+ava1-l14-linearMSE.pth, beside the biases."""


def content(pixels: np.ndarray, keypoints: Keypoints | None = None) -> ClipContent:
    frames = Frames(pixels, np.arange(len(pixels)) / 25)
    return ClipContent(frames, None, keypoints, len(pixels) / 25, 25.0)


def noise(height: int = 40, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, height, width, 3), np.uint8)


def scorer_of(name: str, config: Score) -> Scorer:
    (scorer,) = (scorer for scorer in scorers_for(config) if name in scorer.names)
    return scorer


# LAION's aesthetic predictor


@pytest.fixture(scope="module")
def laion(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """A tiny CLIP with the head of its width."""
    folder = tmp_path_factory.mktemp("laion")
    save_clip(folder / "clip")
    torch.manual_seed(1)
    head = folder / "head.pth"
    torch.save(Predictor(12).state_dict(), head)
    names = ("config.json", "model.safetensors")
    clip = files_sha256({f"network/{name}": folder / "clip" / name for name in names})
    return Score(
        clip_weights=str(folder / "clip"),
        clip_sha256=clip,
        aesthetic_weights=str(head),
        aesthetic_sha256=file_sha256(head),
    )


def test_the_predictor_has_the_published_layout() -> None:
    state = {name: tuple(value.shape) for name, value in Predictor().state_dict().items()}
    assert {name: shape for name, shape in state.items() if name.endswith("weight")} == PUBLISHED_PREDICTOR
    assert len(state) == 2 * len(PUBLISHED_PREDICTOR)


def as_clip_sees(picture: np.ndarray, side: int) -> np.ndarray:
    """OpenAI's preprocessing: the shorter side to `side` (bicubic), the middle square, normalised."""
    height, width = picture.shape[:2]
    size = side * width // min(height, width), side * height // min(height, width)
    image = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    return ((image[top : top + side, left : left + side] - mean) / std).astype(np.float32)


def test_the_rating_is_that_of_transformers_and_the_head(laion: Score) -> None:
    from transformers import CLIPModel

    clip = content(noise())
    (answer,) = scorer_of("laion_aesthetics", laion).measure(clip)
    squares = np.stack([as_clip_sees(picture, 32) for picture in clip.frames.pixels[clip.few]]).transpose(0, 3, 1, 2)
    model, head = CLIPModel.from_pretrained(laion.clip_weights), Predictor(12).eval()
    head.load_state_dict(torch.load(laion.aesthetic_weights, weights_only=True))
    with torch.inference_mode():
        pooled = model.vision_model(pixel_values=torch.from_numpy(squares)).pooler_output
        embeddings = model.visual_projection(pooled)
        expected = head(embeddings / embeddings.norm(dim=1, keepdim=True))
    assert answer.status == "ok" and answer.num_samples == 5
    assert answer.value == pytest.approx(float(expected.mean()), abs=1e-5)
    (small,) = scorer_of("laion_aesthetics", laion).measure(content(noise(20, 60)))
    assert small.status == "na" and "score.short_side_pixels" in small.error


def test_weights_other_than_the_pinned_ones_are_refused_before_any_clip(laion: Score) -> None:
    check_weights(scorers_for(laion))
    for key in ("clip_sha256", "aesthetic_sha256"):
        with pytest.raises(UserError, match=rf"score\.{key} says nothing"):
            check_weights(scorers_for(replace(laion, **{key: ""})))
    with pytest.raises(UserError, match=r"score\.clip_weights is empty.*clip-vit-large-patch14"):
        check_weights(scorers_for(replace(laion, clip_weights="")))
    with pytest.raises(UserError, match=r"score\.aesthetic_weights=/nowhere: no such file"):
        check_weights(scorers_for(replace(laion, aesthetic_weights="/nowhere")))
    other = Path(laion.aesthetic_weights).with_name("other.pth")
    torch.save({"layers.0.weight": torch.zeros(1)}, other)
    config = replace(laion, aesthetic_weights=str(other), aesthetic_sha256=file_sha256(other))
    with pytest.raises(UserError, match="is not a state dict of"):
        scorer_of("laion_aesthetics", config).measure(content(noise()))


def test_rows_name_implementation_and_weights(laion: Score) -> None:
    measurements = scoring.measure([scorer_of("laion_aesthetics", laion)], content(noise()))
    (row,) = scoring._rows(laion, "c0", measurements)
    assert row["implementation"] == "published" and len(row["weights_sha256"]) == 64 and row["status"] == "ok"


# YuNet


def write_yunet(path: Path) -> None:
    """YuNet's input and outputs; a face at each cell of 8 pixels that is blue in RGB, as wide as 3 cells, as high as 5.

    The network is fed BGR, so blue is its first channel.
    """
    constants: dict[str, np.ndarray] = {
        "blue": np.array([1 / 255, -1 / 255, 0], np.float32).reshape(1, 3, 1, 1),
        "zero": np.zeros((1, 3, 1, 1), np.float32),
    }
    nodes, outputs = [], {}
    for stride in (8, 16, 32):
        nodes.append(node("AveragePool", ["input"], f"cells_{stride}", kernel_shape=[stride] * 2, strides=[stride] * 2))
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            output, key = f"{name}_{stride}", f"{name}{stride}"
            seen = stride == 8 and name in ("cls", "obj")
            constants[f"{key}_w"] = np.repeat(constants["blue" if seen else "zero"], channels, axis=0)
            box = [0.5, 0.5, np.log(3), np.log(5)] if name == "bbox" else [0.0] * channels
            constants[f"{key}_b"] = np.array(box, np.float32)
            constants[f"{key}_s"] = np.array([1, -1, channels])
            nodes += [
                node("Conv", [f"cells_{stride}", f"{key}_w", f"{key}_b"], f"{key}_c", kernel_shape=[1, 1]),
                node("Transpose", [f"{key}_c"], f"{key}_t", perm=[0, 2, 3, 1]),
                node("Reshape", [f"{key}_t", f"{key}_s"], output),
            ]
            outputs[output] = (1, (96 // stride) ** 2, channels)
    write_model(path, nodes, constants, {"input": (1, 3, 96, 96)}, outputs)


@pytest.fixture
def yunet(tmp_path: Path) -> Score:
    path = tmp_path / "face_detection_yunet.onnx"
    write_yunet(path)
    return Score(face_weights=str(path), face_sha256=file_sha256(path))


def test_faces_are_counted_and_measured(yunet: Score) -> None:
    pixels = np.zeros((6, 96, 128, 3), np.uint8)
    pixels[:, 40:48, 16:24, 2] = 255
    pixels[3:, 40:48, 96:104, 2] = 255
    clip = content(pixels)
    size, count, steadiness = scorer_of("num_faces", yunet).measure(clip)
    assert size.value == pytest.approx(40 / 96, rel=1e-3) and size.num_samples == 5
    shown = np.where(clip.few >= 3, 2, 1)
    assert count.value == np.median(shown) and count.num_samples == 5
    assert steadiness.value == pytest.approx(np.mean(shown == np.median(shown)))
    size, count, _ = scorer_of("face_size", yunet).measure(content(np.zeros_like(pixels)))
    assert (size.value, size.num_samples, count.value) == (0.0, 0, 0.0)


def test_yunet_takes_the_place_of_the_stand_in(yunet: Score) -> None:
    names = [name for scorer in scorers_for(yunet) for name in scorer.names]
    assert names.count("face_size") == 1 and scorer_of("face_size", yunet).implementation == "published"
    assert scorer_of("face_size", Score()).implementation == "fallback"
    with pytest.raises(UserError, match=r"score\.face_sha256 says 0"):
        check_weights(scorers_for(replace(yunet, face_sha256="0")))


def test_decisions_are_provisional_only_while_they_rest_on_stand_ins(yunet: Score) -> None:
    policy = Decide({"face": Rule("face_size", "audio", at_least=0.1), "light": Rule("brightness", "base")})
    clips = pd.DataFrame({"clip_id": ["c0"], "status": ["ok"]})
    provisional = {}
    for config in (Score(), yunet):
        (face,) = (scorer.implementation for scorer in scorers_for(config) if "face_size" in scorer.names)
        rows = [("face_size", face, 0.5), ("brightness", "published", 0.5)]
        scores = pd.DataFrame(
            [("c0", name, by, value, "ok") for name, by, value in rows],
            columns=["clip_id", "scorer", "implementation", "value", "status"],
        )
        table = decide_all(judge(clips, scores, policy), policy).to_pandas().set_index("modality")
        provisional[face] = table["provisional"].to_dict()
    assert provisional["fallback"]["audio"] and not provisional["fallback"]["text"]
    assert not any(provisional["published"].values())


# DWPose


def test_a_pose_that_nobody_declared_is_found(tmp_path: Path) -> None:
    write_detector(tmp_path / "yolox_l.onnx", (BOB, PERSON, 0.9, 0.0))
    peaks = np.stack([np.arange(133) % 90 + 2, np.arange(133) % 120 + 2], axis=1)
    write_pose(tmp_path / "dw-ll_ucoco_384.onnx", peaks, np.full(133, 0.8))
    config = Score(pose_weights=str(tmp_path), pose_sha256=files_sha256(estimator_files(tmp_path)))
    check_weights(scorers_for(config))
    scorer = scorer_of("pose_visibility", config)
    bare = content(noise(120, 200))
    visibility, jitter, limbs = scorer.measure(bare)
    assert (visibility.value, visibility.num_samples) == (1.0, 6) and jitter.value == limbs.value == 0
    assert scorer_of("pose_visibility", Score()).measure(bare)[0].status == "na"
    hidden = Keypoints(np.zeros((6, len(WHOLE_BODY_KEYPOINTS), 3), np.float32), bare.frames.seconds)
    assert scorer.measure(replace(bare, keypoints=hidden))[0].value == 0, "a declared pose is measured as it is"
    with pytest.raises(UserError, match=r"score\.pose_weights=.* has the hash"):
        check_weights(scorers_for(replace(config, pose_sha256="0")))
