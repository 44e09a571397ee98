"""Segments chained into videos of any length: lengths, what each segment hears, resuming and sharing a batch."""

import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import ENCODERS, WIDTHS, random_conditions, random_model
from torch import Tensor

from omnihuman.batch import Conditions, Sound
from omnihuman.conditions.audio import speech_windows
from omnihuman.conditions.windows import window_inputs, window_latents
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.data.shards import EncodedClip
from omnihuman.encoders.speech import SAMPLE_RATE, LogMel
from omnihuman.encoders.video_codec import CosineCodec, num_frames, num_latent_frames
from omnihuman.errors import UserError
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import Chain, VideoInputs, make_chain, num_segments
from omnihuman.inference.colour import towards_reference
from omnihuman.inference.generator import Generator
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.long_video import VideoJob, generate_video, generate_videos
from omnihuman.inference.speech_track import SpeechTrack

FPS = 25.0
SEGMENT = ENCODERS.num_frames
CHAININGS = ("decoded_frames", "latent_stream")


@dataclass(frozen=True)
class CountingGenerator(Generator):
    """Notes the keys of the segments of each call."""

    calls: list[Sequence[tuple[int | str, ...]]] = field(default_factory=list)

    def segment(self, conditions: Conditions, num_latents: int, noise_keys: Sequence[tuple[int | str, ...]]) -> Tensor:
        self.calls.append(noise_keys)
        return super().segment(conditions, num_latents, noise_keys)


def generator() -> CountingGenerator:
    return CountingGenerator(random_model(), ENCODERS, Sampling(num_steps=2, guidance_audio=2.0))


def noise(seconds: float) -> Sound:
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return Sound(samples.astype(np.float32), SAMPLE_RATE)


def inputs(frames: int, size: tuple[int, int] = (4, 4)) -> VideoInputs:
    random = np.random.default_rng(frames)
    return VideoInputs(
        num_frames=frames,
        reference=random.standard_normal((WIDTHS.latent_channels, *size)).astype(np.float32),
        reference_keypoints=np.zeros((17, 3), np.float32),
        text=random.standard_normal((2, 64)).astype(np.float32),
        speech=SpeechTrack(LogMel(), noise(frames / FPS), frames, FPS),
        keypoints=random.random((frames, 17, 3), dtype=np.float32),
        active=active_conditions(audio=True, pose=True),
    )


def made(job: VideoJob, chaining: str = "decoded_frames", by: Generator | None = None) -> np.ndarray:
    return np.concatenate(list(generate_video(by or generator(), job, Render(chaining=chaining))))


@pytest.mark.parametrize(("frames", "segments"), [(1, 1), (9, 1), (10, 2), (13, 2), (14, 3), (100, 24)])
def test_number_of_segments(frames: int, segments: int):
    assert num_segments(frames, 9) == segments


def test_segments_of_motion_frames_alone_cannot_be_joined():
    assert num_segments(5, 5) == 1
    with pytest.raises(UserError, match="segments of 5 frames"):
        num_segments(6, 5)


@pytest.mark.parametrize("chaining", CHAININGS)
@pytest.mark.parametrize("frames", [1, 9, 10, 26])
def test_long_video_has_exactly_the_asked_length(frames: int, chaining: str):
    parts = list(generate_video(generator(), VideoJob(inputs(frames), 0), Render(chaining=chaining)))
    assert sum(len(part) for part in parts) == frames
    assert len(parts) == num_segments(frames, SEGMENT)
    assert parts[0].shape[1:] == (32, 32, 3)
    assert all(part.min() >= 0.0 and part.max() <= 1.0 for part in parts)


@pytest.mark.parametrize("chaining", CHAININGS)
def test_same_seed_same_video_and_another_seed_another(chaining: str):
    first, again, other = (made(VideoJob(inputs(20), seed), chaining) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_noise_belongs_to_the_segment_and_not_to_its_batch():
    conditions = random_conditions(height=4, width=4)
    together = generator().segment(conditions, num_latent_frames(9), [(1, "a"), (1, "b")])
    swapped = generator().segment(conditions, num_latent_frames(9), [(1, "b"), (1, "a")])
    assert (together - swapped).abs().max() > 1e-3
    again = generator().segment(conditions, num_latent_frames(9), [(1, "a"), (1, "b")])
    np.testing.assert_array_equal(together, again)


def chain(frames: int, chaining: str) -> Chain:
    return make_chain(inputs(frames), CosineCodec(), ENCODERS, Render(chaining=chaining))


def test_a_stream_of_latents_is_decoded_as_if_it_were_one_video():
    stream = chain(21, "latent_stream")
    latents = 0.3 * torch.randn(1, WIDTHS.latent_channels, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    frames = []
    for number in range(4):
        conditions = stream.conditions()
        if number:
            assert torch.equal(conditions.motion, latents[:, :, number : number + 2])
        assert conditions.motion_on.item() == (number > 0)
        frames.append(stream.accept(latents[:, :, number : number + 3]))
    whole = (CosineCodec().decode(latents).clamp(-1, 1)[0].permute(1, 2, 3, 0) + 1) / 2
    np.testing.assert_allclose(np.concatenate(frames), whole, atol=1e-6)


def test_a_segment_of_a_stream_hears_and_sees_what_its_latents_cover():
    """As if all latents of the video were one segment."""
    stream, given = chain(21, "latent_stream"), inputs(21)
    whole = speech_windows(given.speech.between(0, 21), 0, 6)
    for number in range(4):
        conditions = stream.conditions()
        np.testing.assert_allclose(conditions.speech[0], whole.features[number : number + 3], atol=1e-6)
        np.testing.assert_array_equal(conditions.speech_mask[0], whole.mask[number : number + 3])
        first = 4 * number - 3 if number else 0
        np.testing.assert_array_equal(conditions.keypoints[0], given.keypoints[first : 4 * number + 9])
        stream.accept(torch.zeros(1, WIDTHS.latent_channels, 3, 4, 4))


def test_decoded_frames_are_encoded_again_as_the_next_segments_start():
    joined, codec = chain(13, "decoded_frames"), CosineCodec()
    latents = 0.3 * torch.randn(1, WIDTHS.latent_channels, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    joined.accept(latents)
    conditions = joined.conditions()
    torch.testing.assert_close(conditions.motion, codec.encode(codec.decode(latents).clamp(-1, 1)[:, :, -5:]))
    windows = speech_windows(inputs(13).speech.between(0, 13), 4, 3)
    np.testing.assert_array_equal(conditions.speech[0], windows.features)
    np.testing.assert_array_equal(conditions.speech_mask[0], windows.mask)
    assert conditions.keypoints.shape[1] == num_frames(3)


def test_training_in_midstream_shows_what_a_stream_will_show():
    """A window from the start of a clip, without its first latent, is the second segment of a stream that began there.

    Here the stream advances by one latent, so both begin with the same two latents.
    """
    given, random = inputs(13), np.random.default_rng(3)
    latents = random.standard_normal((1, WIDTHS.latent_channels, 4, 4, 4)).astype(np.float16)
    clip = EncodedClip(
        latents, np.zeros(1, np.int32), latents[:, :, 0], np.zeros(1, np.int32), given.speech.between(0, 13),
        np.zeros(0, np.int16), given.keypoints, given.text,
    )  # fmt: skip
    window = window_inputs(clip, 0, 0, clip.text, in_midstream=True)
    stream = chain(13, "latent_stream")
    stream.accept(torch.from_numpy(latents[:, :, :3]).float())
    conditions = stream.conditions()
    np.testing.assert_allclose(conditions.speech[0], window.speech.features, atol=1e-6)
    np.testing.assert_array_equal(conditions.speech_mask[0], window.speech.mask)
    np.testing.assert_array_equal(conditions.keypoints[0], window.keypoints)
    np.testing.assert_array_equal(conditions.motion[0], window.motion)
    np.testing.assert_array_equal(window_latents(clip, 0, in_midstream=True), latents[0, :, 1:])


@pytest.mark.parametrize("chaining", CHAININGS)
def test_a_stopped_video_goes_on_where_it_was(tmp_path: Path, chaining: str):
    whole_folder, folder = tmp_path / "whole", tmp_path / "stopped"
    whole = made(VideoJob(inputs(26), 0, KeptSegments(whole_folder)), chaining)
    stopped = generate_video(generator(), VideoJob(inputs(26), 0, KeptSegments(folder)), Render(chaining=chaining))
    next(stopped), next(stopped)
    assert len(list(folder.iterdir())) == 2
    second = generator()
    resumed = made(VideoJob(inputs(26), 0, KeptSegments(folder)), chaining, second)
    assert len(second.calls) == num_segments(26, SEGMENT) - 2
    np.testing.assert_array_equal(whole, resumed)
    for path in sorted(whole_folder.iterdir()):
        assert path.read_bytes() == (folder / path.name).read_bytes(), "latents byte for byte"


def test_a_full_disk_of_the_work_folder_is_an_error_of_the_system(tmp_path: Path):
    """Which `render` puts into words; safetensors' own error would be none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            KeptSegments(tmp_path).save(0, torch.zeros(1, 59, 3, 4, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_segment_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    kept = KeptSegments(tmp_path / "kept")
    whole = made(VideoJob(inputs(14), 0, kept))
    path = sorted(kept.folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-100])
    again = generator()
    np.testing.assert_array_equal(made(VideoJob(inputs(14), 0, kept), by=again), whole)
    assert len(again.calls) == 1 and "is damaged" in caplog.text
    kept.clear()
    assert not kept.folder.exists()


@pytest.mark.parametrize("chaining", CHAININGS)
def test_segments_of_several_videos_share_a_batch(chaining: str):
    lengths = (20, 9, 30, 5, 12)
    jobs = [VideoJob(inputs(frames), seed) for seed, frames in enumerate(lengths)]
    jobs.append(VideoJob(inputs(20, size=(2, 4)), 9))
    together, parts = generator(), {number: [] for number in range(len(jobs))}
    for number, frames in generate_videos(together, jobs, Render(chaining=chaining), batch_size=3):
        parts[number].append(frames)
    separate = generator()
    for number, job in enumerate(jobs):
        np.testing.assert_allclose(np.concatenate(parts[number]), made(job, chaining, separate), atol=2e-4)
    assert sum(map(len, together.calls)) == len(separate.calls)
    assert max(map(len, together.calls)) == 3 and len(together.calls) < 0.75 * len(separate.calls)


def test_a_long_sound_is_encoded_in_pieces_and_only_those_that_are_needed():
    lengths: list[int] = []

    class Counted(LogMel):
        def encode(self, sound: Sound, num_frames: int, fps: float) -> np.ndarray:
            lengths.append(num_frames)
            return super().encode(sound, num_frames, fps)

    sound, frames = noise(65.0), round(65.0 * FPS)
    whole = LogMel().encode(sound, frames, FPS)
    track = SpeechTrack(Counted(), sound, frames, FPS)
    heard = np.concatenate([track.between(first, min(first + 12, frames)) for first in range(0, frames, 12)])
    np.testing.assert_allclose(heard, whole, atol=1e-5)
    assert len(lengths) == 4, "each piece once"
    assert max(lengths) <= 500 + 2 * 50
    short = SpeechTrack(Counted(), noise(21.0), 525, FPS)
    np.testing.assert_array_equal(short.between(0, 525), LogMel().encode(noise(21.0), 525, FPS))
    assert not SpeechTrack(LogMel(), None, 30, FPS).between(5, 30).any()


def test_colour_is_led_back_to_the_reference():
    random = torch.Generator().manual_seed(0)
    reference = 0.2 * torch.randn(1, 3, 1, 8, 8, generator=random) + 0.1
    drifted = 0.5 * reference.expand(-1, -1, 5, -1, -1) - 0.3
    assert towards_reference(drifted, reference, 0.0) is drifted
    torch.testing.assert_close(towards_reference(drifted, reference, 1.0), reference.expand_as(drifted))
    halfway = towards_reference(drifted, reference, 0.5)
    torch.testing.assert_close(halfway, (drifted + reference) / 2)
    assert torch.isfinite(towards_reference(torch.zeros(1, 3, 5, 4, 4), reference, 1.0)).all()


def test_keeping_colour_changes_later_segments_only():
    plain = made(VideoJob(inputs(20), 0))
    kept = np.concatenate(list(generate_video(generator(), VideoJob(inputs(20), 0), Render(keep_colour=1.0))))
    np.testing.assert_array_equal(plain[:SEGMENT], kept[:SEGMENT])
    assert np.abs(plain[SEGMENT:] - kept[SEGMENT:]).max() > 1e-3


def test_silence_instead_of_sound_is_another_video():
    """Silence is a sound; a condition that is off is not silence."""
    spoken = VideoJob(inputs(9), 0)
    silent = VideoJob(
        replace(spoken.inputs, speech=SpeechTrack(LogMel(), Sound(np.zeros(5760, np.float32), SAMPLE_RATE), 9, FPS)), 0
    )
    off = VideoJob(replace(spoken.inputs, active=active_conditions(audio=False, pose=True)), 0)
    videos = [made(job) for job in (spoken, silent, off)]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in ((videos[0], videos[1]), (videos[1], videos[2])))
