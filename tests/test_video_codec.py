"""The weight-free codec: shapes, causality, reconstruction."""

import numpy as np
import pytest
import torch

from omnihuman.encoders.video_codec import CosineCodec, cosine_basis, num_frames, num_latent_frames
from omnihuman.errors import UserError

CODEC = CosineCodec()


def smooth_video(num: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """[1, 3, F, H, W]: a disc that moves over a gradient."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = []
    for i in range(num):
        disc = np.exp(-(((rows - 16) / 8.0) ** 2) - ((columns - 12 - i) / 8.0) ** 2)
        frames.append(np.stack([disc * 2 - 1, columns / width - 0.5, rows / height * disc]))
    return torch.from_numpy(np.stack(frames, axis=1)).float()[None]


def test_basis_is_orthonormal():
    basis = cosine_basis(8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))


def test_shapes_and_counts():
    latents = CODEC.encode(smooth_video(17))
    assert latents.shape == (1, CODEC.num_channels, 5, 4, 6)
    assert CODEC.decode(latents).shape == (1, 3, 17, 32, 48)
    assert [num_latent_frames(num_frames(t)) for t in (1, 2, 5)] == [1, 2, 5]


def test_smooth_video_survives():
    video = smooth_video(17)
    error = (CODEC.decode(CODEC.encode(video)) - video).pow(2).mean()
    assert 10 * torch.log10(4 / error) > 34


def test_encoding_is_idempotent():
    once = CODEC.encode(smooth_video(9))
    torch.testing.assert_close(CODEC.encode(CODEC.decode(once)), once, atol=1e-4, rtol=1e-4)


def test_a_latent_never_sees_a_later_frame():
    video = smooth_video(17)
    changed = video.clone()
    changed[:, :, 9:] = 0.3  # frames 9..16 are latents 3 and 4
    before, after = CODEC.encode(video), CODEC.encode(changed)
    torch.testing.assert_close(before[:, :, :3], after[:, :, :3], rtol=0, atol=0)
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


def test_five_frames_are_a_prefix_of_a_longer_encoding():
    video = smooth_video(17)
    torch.testing.assert_close(CODEC.encode(video[:, :, :5]), CODEC.encode(video)[:, :, :2])


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_a_stream_equals_the_whole(frames: int) -> None:
    video = smooth_video(frames)
    latents = CODEC.encode(video)
    encoded = list(CODEC.encode_stream(video[:, :, max(0, last - 4) : last] for last in range(1, frames + 1, 4)))
    torch.testing.assert_close(torch.cat(encoded, dim=2), latents, rtol=0, atol=0)
    parts = list(CODEC.decode_stream(latents[:, :, t : t + 1] for t in range(latents.shape[2])))
    assert [part.shape[2] for part in parts] == [1, *[4] * (frames // 4)]
    torch.testing.assert_close(torch.cat(parts, dim=2), CODEC.decode(latents), rtol=0, atol=0)
    with pytest.raises(UserError, match="chunk 1 of a video has 3 frames: the codec takes 4"):
        list(CODEC.encode_stream([video[:, :, :1], torch.zeros(1, 3, 3, 32, 48)]))


@pytest.mark.parametrize(("frames", "height"), [(16, 32), (17, 30)])
def test_wrong_sizes_are_refused(frames: int, height: int):
    with pytest.raises(UserError, match="cannot be encoded"):
        CODEC.encode(torch.zeros(1, 3, frames, height, 32))
