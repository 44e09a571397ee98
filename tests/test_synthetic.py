import json
import resource
from pathlib import Path

import av
import av.error
import numpy as np
import pytest

from omnihuman.batch import KEYPOINTS
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.data.synthetic.corpus import generate_corpus, write_clip
from omnihuman.data.synthetic.defects import DEFECTS
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.data.synthetic.render import NEUTRAL_WIDTH, WIDTH_SWING, render_clip
from omnihuman.data.synthetic.voice import CONTROL_RATE, envelope

TINY = SyntheticCorpus(num_identities=8, clips_per_identity=2, clip_seconds=1.6)
WHOLE = SyntheticCorpus(num_identities=96, clips_per_identity=4)


def clean(config: SyntheticCorpus, kind: str = "fit") -> list[ClipPlan]:
    return [plan for plan in plan_corpus(config, 3) if not plan.defect and plan.kind == kind]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("corpus")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    generate_corpus(TINY, 3, folder / "videos", folder / "truth")
    return folder, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_layout_keeps_the_truth_apart(tiny: tuple[Path, float]) -> None:
    folder, _ = tiny
    plans = plan_corpus(TINY, 3)
    assert {path.name for path in (folder / "truth").iterdir()} == {f"{plan.name}.json" for plan in plans}
    for plan in plans:
        sidecar = json.loads((folder / "videos" / f"{plan.name}.json").read_text())
        assert set(sidecar) == {
            "identity", "caption", "language", "licence", "consent_basis", "rights_holder", "takedown_key",
        }  # fmt: skip
        assert (folder / "videos" / f"{plan.name}.keypoints.npz").exists() == plan.has_keypoints
    defects = {json.loads(path.read_text())["defect"] for path in (folder / "truth").iterdir()}
    assert len(defects) == 1 + round(TINY.defective_share * 16)


def test_files_decode_unless_truncated(tmp_path: Path) -> None:
    plans = {plan.defect: plan for plan in plan_corpus(WHOLE, 3)}
    for defect in ("", "truncated"):
        write_clip(plans[defect], tmp_path, tmp_path / "truth")
    name = tmp_path / f"{plans[''].name}.mp4"
    with av.open(str(name)) as container:
        assert {stream.codec_context.name for stream in container.streams} == {"h264", "aac"}
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(times, plans[""].seconds, atol=1e-3)
    with pytest.raises(av.error.FFmpegError), av.open(str(tmp_path / f"{plans['truncated'].name}.mp4")) as container:
        list(container.decode(video=0))


def test_second_run_gives_the_same_bytes(tiny: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = tiny
    for plan in plan_corpus(TINY, 3)[::5]:
        write_clip(plan, tmp_path / "videos", tmp_path / "truth")
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path.name


def test_mouth_follows_loudness_with_its_opening_and_vowels_with_its_width() -> None:
    by_energy, between = [], []
    for plan in clean(WHOLE)[:40]:
        clip = render_clip(plan)
        at = np.minimum((plan.seconds * CONTROL_RATE).astype(int), len(clip.sound.samples) // 40 - 1)
        energy = envelope(clip.sound.samples)[at]
        by_energy.append(np.corrcoef(clip.mouth.opening, energy)[0, 1])
        between.append(np.corrcoef(clip.mouth.opening, clip.mouth.width)[0, 1])
        assert clip.mouth.opening.min() >= 0 and clip.mouth.opening.max() <= 0.28
        assert np.abs(clip.mouth.width - NEUTRAL_WIDTH).max() < WIDTH_SWING + 1e-9
    assert min(by_energy) > 0.7
    assert np.mean(np.abs(between)) < 0.25


def test_width_can_be_heard() -> None:
    correlations = []
    for plan in clean(WHOLE)[:20]:
        clip = render_clip(plan)
        loud = clip.mouth.energy > 0.3
        window = np.hanning(800)
        spectra = []
        for moment in plan.seconds[loud]:
            first = int(np.clip(moment * 16000 - 400, 0, len(clip.sound.samples) - 800))
            spectra.append(np.abs(np.fft.rfft(clip.sound.samples[first : first + 800] * window)) ** 2)
        power = np.array(spectra)
        hertz = np.fft.rfftfreq(800, 1 / 16000)
        high = power[:, (hertz > 1500) & (hertz < 2500)].sum(axis=1) / power[:, (hertz > 200) & (hertz < 1500)].sum(
            axis=1
        )
        correlations.append(np.corrcoef(np.log(high + 1e-9), clip.mouth.width[loud])[0, 1])
    assert np.mean(correlations) > 0.5


def test_sound_of_unfit_and_swapped_clips_tells_nothing_about_the_mouth() -> None:
    plans = [plan for plan in plan_corpus(WHOLE, 3) if plan.sound in ("swapped", "music", "narrator")]
    correlations = []
    for plan in [plan for plan in plans if plan.mouth == "speaks"][:20]:
        clip = render_clip(plan)
        at = (plan.seconds * CONTROL_RATE).astype(int)
        correlations.append(np.corrcoef(clip.mouth.opening, envelope(clip.sound.samples)[at])[0, 1])
    assert abs(np.mean(correlations)) < 0.15


def test_defects_and_formats_have_their_shares() -> None:
    plans = plan_corpus(WHOLE, 3)
    defective = [plan.defect for plan in plans if plan.defect]
    assert len(defective) == round(WHOLE.defective_share * len(plans))
    counts = [defective.count(defect) for defect in DEFECTS]
    assert max(counts) - min(counts) <= 1
    unfit = [plan for plan in plans if plan.kind == "unfit"]
    assert len(unfit) == round(WHOLE.unfit_share * (len(plans) - len(defective)))
    assert not any(plan.defect for plan in unfit)
    assert {plan.fps for plan in plans} == {24, 25, 30}
    assert len({(plan.width, plan.height) for plan in plans}) == 5
    fit_styles = {(scene.style, scene.movement, scene.pans) for plan in clean(WHOLE) for scene in plan.scenes}
    assert fit_styles == {("", "stand", False)}


def test_declared_wrists_lie_on_the_drawn_hands() -> None:
    on_skin, visible = [], []
    for plan in [plan for plan in clean(WHOLE) if plan.scenes[0].shot != "face"][:16]:  # a face is cut at the chin
        clip = render_clip(plan)
        frames = list(clip.frames)
        points = clip.keypoints.points
        assert points.shape == (plan.num_frames, len(KEYPOINTS), 3)
        inside = points[..., 2] > 0
        assert ((points[inside][:, :2] >= 0) & (points[inside][:, :2] < 1)).all()
        skin = np.array(plan.person.looks.skin) / np.linalg.norm(plan.person.looks.skin)
        for frame in range(0, plan.num_frames, 12):
            for name in ("left_wrist", "right_wrist"):
                x, y, confidence = points[frame, KEYPOINTS.index(name)]
                visible.append(confidence)
                if confidence:
                    pixel = frames[frame][int(y * plan.height), int(x * plan.width)].astype(float)
                    on_skin.append(pixel @ skin / np.linalg.norm(pixel) > 0.99)
    assert np.mean(visible) > 0.95
    assert np.mean(on_skin) > 0.95


def test_hands_out_of_frame_and_unfit_clips_hide_the_wrists() -> None:
    plans = [plan for plan in plan_corpus(WHOLE, 3) if plan.defect == "hands_out_of_frame" or plan.kind == "unfit"]
    for plan in [plan for plan in plans if plan.has_keypoints][:12]:
        wrists = render_clip(plan).keypoints.points[:, KEYPOINTS.index("left_wrist") :][:, :2]
        assert (wrists[..., 2] == 0).all()


def test_declared_pose_trembles_only_where_it_should() -> None:
    plans = {plan.defect: plan for plan in plan_corpus(WHOLE, 3)}
    jumps = {
        defect: np.abs(np.diff(render_clip(plans[defect]).keypoints.points[:, 0, :2], n=2, axis=0)).mean()
        for defect in ("", "pose_jitter")
    }
    assert jumps["pose_jitter"] > 8 * jumps[""]


def test_tiny_corpus_is_quick(tiny: tuple[Path, float]) -> None:
    _, worker_seconds = tiny
    assert worker_seconds < 8  # on two cores less than 4 s
