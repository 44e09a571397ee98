"""Where a segment is computed, in which precision and in how much memory: it stays the same segment."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import ENCODERS, random_conditions, random_model
from tests.tiny_checkpoints import save_vae
from torch import Tensor

from omnihuman.conditions import pose
from omnihuman.conditions.pose import draw_pose
from omnihuman.config.schema.evaluate import Sampling
from omnihuman.encoders.wan_vae import WanVae
from omnihuman.errors import UserError
from omnihuman.inference.generator import Generator
from omnihuman.inference.placement import COMPILE, DEVICE, OFFLOAD, OffloadedVae, Placement
from omnihuman.model.omnihuman import OmniHumanTransformer

SAMPLING = Sampling(num_steps=4, guidance_text=2.0, guidance_audio=3.0)
CPU = torch.device("cpu")
BFLOAT16_TOLERANCE = 0.1
"""Root mean square of the difference over that of the latents. A random network makes more of rounding than a trained
one: its guided branches cancel."""


def made_with(placement: Placement | None = None, **sampling: object) -> Tensor:
    """A segment with motion frames."""
    conditions = random_conditions(height=4, width=4)
    conditions = replace(conditions, motion_on=torch.tensor([True, False]))
    asked = replace(SAMPLING, **sampling)
    return Generator(random_model(), ENCODERS, asked, placement=placement or Placement()).segment(
        conditions, 3, [(1, "a"), (1, "b")]
    )


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return made_with()


@pytest.mark.parametrize("solver", ["euler", "heun", "adams_bashforth"])
def test_motion_frames_stay_as_they_were_given(solver: str) -> None:
    latents, motion = made_with(solver=solver), random_conditions(height=4, width=4).motion
    torch.testing.assert_close(latents[0, :, :2], motion[0], rtol=0, atol=0)
    assert (latents[1, :, :2] - motion[1]).abs().max() > 0.1 and latents.isfinite().all()


def test_offload_changes_nothing(plain: Tensor) -> None:
    assert plain.dtype == torch.float32 and plain.device == CPU
    torch.testing.assert_close(made_with(Placement(CPU, offload=True)), plain, rtol=0, atol=0)
    torch.testing.assert_close(made_with(guidance_batched=False), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"guidance_annealing": "constant"}, 2),  # the driving pose and the reference's
        ({"guidance_batched": False}, 2),
        ({"solver": "heun"}, 4),  # the last step has no guidance, and so a smaller batch
    ],
)
def test_poses_are_drawn_once_a_segment_which_changes_no_bit(
    asked: dict[str, object], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []

    def counted(keypoints: Tensor, height: int, width: int) -> Tensor:
        drawn.append(keypoints)
        return draw_pose(keypoints, height, width)

    monkeypatch.setattr(pose, "draw_pose", counted)
    once, num_once = made_with(**asked), len(drawn)
    monkeypatch.setattr(pose.PoseCondition, "remembering", nullcontext)
    assert torch.equal(made_with(**asked), once)
    assert num_once == expected < len(drawn) - num_once


def test_bfloat16_is_close_and_leaves_the_weights_alone(plain: Tensor) -> None:
    model = random_model()
    generator = Generator(model, ENCODERS, replace(SAMPLING, precision="bfloat16"))
    conditions = replace(random_conditions(height=4, width=4), motion_on=torch.tensor([True, False]))
    half = generator.segment(conditions, 3, [(1, "a"), (1, "b")])
    error = (half - plain).square().mean().sqrt() / plain.square().mean().sqrt()
    assert half.dtype == torch.float32 and 0 < error < BFLOAT16_TOLERANCE, error
    for (name, before), after in zip(random_model().named_parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after), name
    again = replace(generator, sampling=SAMPLING).segment(conditions, 3, [(1, "a"), (1, "b")])
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def test_the_copy_in_bfloat16_is_made_once_and_can_be_trained_on_beside_it() -> None:
    model, placement = random_model(), Placement(CPU)
    networks = []
    with torch.inference_mode():
        for _ in range(2):
            with placement.denoising(model, "bfloat16") as network:
                networks.append(network)
    assert networks[0] is networks[1] is not model
    assert {weight.dtype for weight in networks[0].parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in networks[0].buffers()} == {torch.float32}
    sum(weight.sum() for weight in model.parameters()).backward()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
@pytest.mark.long
def test_compiled_is_close(plain: Tensor) -> None:
    torch.compiler.reset()
    torch.testing.assert_close(made_with(Placement(CPU, compiled=True)), plain, rtol=1e-3, atol=1e-3)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (DEVICE, COMPILE, OFFLOAD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Placement.from_environment() == Placement(CPU)
    monkeypatch.setenv(COMPILE, "1")
    monkeypatch.setenv(OFFLOAD, "1")
    assert Placement.from_environment() == Placement(CPU, compiled=True, offload=True)
    monkeypatch.setenv(OFFLOAD, "yes")
    with pytest.raises(UserError, match=f"{OFFLOAD} is yes: set it to 1 or 0"):
        Placement.from_environment()
    monkeypatch.setenv(DEVICE, "cuda")
    with pytest.raises(UserError, match=f"{DEVICE} is cuda: this machine has cpu; set"):
        Placement.from_environment()


class Places:
    """Where the weights are sent, in place of a device that this machine may not have."""

    def __init__(self, vae: WanVae, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moves: list[str] = []
        monkeypatch.setattr(vae, "move", lambda device: self.moves.append(str(device)))


def test_an_offloaded_vae_is_on_the_device_while_it_works_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_vae(tmp_path)
    vae, whole = WanVae(str(tmp_path)), WanVae(str(tmp_path))
    places, offloaded = Places(vae, monkeypatch), OffloadedVae(vae, "cuda:0")
    video = torch.rand(1, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = offloaded.encode(video)
    assert places.moves == ["cuda:0", "cpu"] and torch.equal(latents, whole.encode(video))

    def denoised() -> Iterator[Tensor]:
        yield from latents.split(1, dim=2)

    parts = []
    for part in offloaded.decode_stream(denoised()):
        assert places.moves[-1] == "cpu"
        parts.append(part)
    assert torch.equal(torch.cat(parts, dim=2), whole.decode(latents))
    assert torch.equal(offloaded.decode(latents), whole.decode(latents))


def test_tiles_are_those_asked_for(tmp_path: Path) -> None:
    save_vae(tmp_path)
    encoders = replace(ENCODERS, video_codec="wan", video_weights=str(tmp_path))
    model: OmniHumanTransformer = random_model()
    latents = torch.randn(1, 16, 2, 5, 9, generator=torch.Generator().manual_seed(0))
    whole = Generator(model, encoders, SAMPLING).codec().decode(latents)
    tiled = Generator(model, encoders, replace(SAMPLING, vae_tile_pixels=32), placement=Placement(CPU)).codec()
    assert tiled.decode(latents).shape == whole.shape == (1, 3, 5, 40, 72)
    assert (tiled.decode(latents) - whole).abs().max() > 1e-4, "tiles are blended"
    assert isinstance(
        Generator(model, encoders, SAMPLING, placement=Placement(CPU, offload=True)).codec(), OffloadedVae
    )
