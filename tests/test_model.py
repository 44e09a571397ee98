"""The MMDiT: off-states, clean tokens, what sees what."""

import math
import re
from dataclasses import replace

import pytest
import torch
from tests.tiny import CONFIG, DESCRIPTION, ENCODERS, WIDTHS, random_conditions, random_model
from torch.nn import functional

from omnihuman.batch import KEYPOINTS, LIMBS, WHOLE_BODY_KEYPOINTS, ModelInput
from omnihuman.conditions.audio import NEIGHBOURS, WINDOW, Sound, speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_LATENTS, motion_mask, put_back
from omnihuman.conditions.pose import draw_pose, pose_maps
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import load_model, save_model
from omnihuman.model.modulation import Levels, Modulation
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.rope import rotate, rotation, video_positions
from omnihuman.packed import Runs

SIGMA = torch.tensor([0.3, 0.8])
OFF = torch.zeros(2, dtype=torch.bool)


def noisy(seed: int = 5) -> torch.Tensor:
    return torch.randn(2, WIDTHS.latent_channels, 3, 2, 3, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(conditions=None, x=None, sigma=SIGMA) -> torch.Tensor:
    return random_model()(noisy() if x is None else x, sigma, conditions or random_conditions())


def test_output_has_the_shape_of_the_latents():
    assert run().shape == noisy().shape


@pytest.mark.parametrize("name", ["text", "reference", "speech", "keypoints", "reference_keypoints"])
def test_every_condition_acts(name: str):
    changed = replace(random_conditions(), **{name: getattr(random_conditions(seed=9), name)})
    assert (run(changed) - run()).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("audio_on", "speech"),
        ("pose_on", "keypoints"),
        ("pose_on", "reference_keypoints"),
        ("reference_on", "reference"),
        ("reference_on", "reference_keypoints"),
    ],
)
def test_off_means_that_the_value_does_not_matter(flag: str, value: str):
    off = replace(random_conditions(), **{flag: OFF})
    other = replace(off, **{value: getattr(random_conditions(seed=9), value)})
    torch.testing.assert_close(run(off), run(other), rtol=0, atol=0)


def test_off_in_one_sample_equals_off_in_the_whole_batch():
    half = torch.tensor([True, False])
    for flag in ("audio_on", "pose_on", "reference_on"):
        mixed = run(replace(random_conditions(), **{flag: half}))
        torch.testing.assert_close(mixed[1], run(replace(random_conditions(), **{flag: OFF}))[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mixed[0], run()[0], atol=1e-5, rtol=1e-5)


def test_text_padding_is_invisible():
    padded = random_conditions()
    text = padded.text.clone()
    text[0, 4:] = 100.0  # sample 0 has four real tokens
    torch.testing.assert_close(run(replace(padded, text=text)), run(padded), rtol=0, atol=0)


def test_motion_frames_replace_the_noise_and_do_not_depend_on_it():
    conditions = replace(random_conditions(), motion_on=~OFF)
    x = noisy()
    x[:, :, :NUM_MOTION_LATENTS] = 7.0
    others = slice(NUM_MOTION_LATENTS, None)  # the output means nothing at the motion frames themselves
    torch.testing.assert_close(run(conditions, x)[:, :, others], run(conditions)[:, :, others], rtol=0, atol=0)
    mask = motion_mask(conditions.motion_on, 3)
    torch.testing.assert_close(put_back(x, conditions.motion, mask)[:, :, :2], conditions.motion)


def test_clean_tokens_are_modulated_with_sigma_zero(monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.Tensor] = []
    original = Modulation.forward

    def spy(self: Modulation, levels: Levels) -> tuple[torch.Tensor, ...]:
        chunks = original(self, levels)
        seen.append(chunks[0])
        return chunks

    monkeypatch.setattr(Modulation, "forward", spy)
    conditions = replace(random_conditions(), motion_on=~OFF)
    for sigma in (0.3, 0.9):
        run(conditions, sigma=torch.full((2,), sigma))
    low, high = seen[0], seen[len(seen) // 2]  # of the first block's video stream
    clean = torch.zeros(2, 6 + 3 * 6, dtype=torch.bool)
    clean[:, : 6 + 2 * 6] = True  # reference tokens, then two motion latents of 2 x 3 tokens
    clean = clean.flatten()
    torch.testing.assert_close(low[clean], high[clean])
    assert (low[~clean] - high[~clean]).abs().amax(dim=1).min() > 1e-3


@pytest.mark.parametrize("sizes", [[(3, 6)], [(3, 6), (2, 4)]])
def test_a_latent_frame_hears_only_its_own_sound(sizes: list[tuple[int, int]]):
    """Frames of six tokens, in a pack also frames of four; a clean token before each sample hears nothing."""
    attention, draw = random_model().audio_attention[0], torch.Generator().manual_seed(1)
    frames = [tokens for count, tokens in sizes for _ in range(count)]
    hears = torch.cat([torch.arange(1 + count * tokens) > 0 for count, tokens in sizes])
    device = hears.device
    tokens = torch.randn(len(frames), 4, CONFIG.audio_width, generator=draw)
    x = torch.randn(len(hears), CONFIG.width, generator=draw)

    def heard(tokens: torch.Tensor) -> torch.Tensor:
        places = hears.nonzero()[:, 0]
        sound = Sound(tokens.flatten(0, 1), Runs.of([4] * len(frames), device), places, Runs.of(frames, device))
        return attention(x, sound, places)

    changed = tokens.clone()
    changed[1] += 1.0
    difference = (heard(changed) - heard(tokens)).abs().amax(dim=1)
    first = 1 + frames[0]
    assert difference[first : first + frames[1]].min() > 0
    assert difference[:first].max() == difference[first + frames[1] :].max() == 0
    torch.testing.assert_close(heard(tokens)[~hears], x[~hears], rtol=0, atol=0)


def test_sound_adds_nothing_at_initialisation():
    torch.manual_seed(0)
    model = OmniHumanTransformer(CONFIG, WIDTHS)
    with torch.no_grad():
        for layer in (model.base.norm_out, model.base.proj_out):
            torch.nn.init.normal_(layer.weight, std=0.2)
        on, off = random_conditions(), replace(random_conditions(), audio_on=OFF)
        torch.testing.assert_close(model(noisy(), SIGMA, on), model(noisy(), SIGMA, off), rtol=0, atol=0)


def test_gradients_reach_every_parameter():
    widths = replace(WIDTHS, speech_layers=3)
    model = random_model(widths=widths)
    model(noisy(), SIGMA, random_conditions(widths=widths)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_speech_windows_follow_the_causal_compression():
    features = torch.arange(30.0)[:, None, None].numpy()
    windows = speech_windows(features, start=10, num_latents=3)
    assert windows.mask[0].sum() == 1 + 2 * NEIGHBOURS and windows.mask[1:].all()
    assert windows.features[0, windows.mask[0], 0, 0].tolist() == [8, 9, 10, 11, 12]
    assert windows.features[1, :, 0, 0].tolist() == list(range(9, 17))  # latent 1 covers frames 11 .. 14
    assert windows.features[2, :, 0, 0].tolist() == list(range(13, 21))
    edge = speech_windows(features, start=0, num_latents=2)
    assert edge.features[0, edge.mask[0], 0, 0].tolist() == [0, 1, 2]
    assert windows.features.shape == (3, WINDOW, 1, 1)


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    positions = video_positions(3, 2, 2, torch.device("cpu"))
    x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(len(positions), -1, -1)
    turned = rotate(x, rotation(positions, (4, 6, 6), 1e4))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    products = turned[:, 0] @ turned[:, 0].T
    torch.testing.assert_close(products[0, 4], products[4, 8])  # one step in time, from t = 0 and from t = 1


def test_joints_are_blobs_and_limbs_are_ridges_that_vanish_without_confidence():
    keypoints = torch.zeros(len(KEYPOINTS), 3)
    shoulder, elbow, wrist = (KEYPOINTS.index(f"left_{name}") for name in ("shoulder", "elbow", "wrist"))
    keypoints[shoulder] = torch.tensor([0.25, 0.75, 1.0])
    keypoints[elbow] = torch.tensor([0.75, 0.75, 0.5])
    keypoints[wrist] = torch.tensor([0.75, 0.25, 0.0])
    maps = draw_pose(keypoints, 16, 8)
    assert maps.shape == (len(KEYPOINTS) + len(LIMBS), 16, 8)
    row, column = divmod(int(maps[shoulder].argmax()), 8)
    assert row in (11, 12) and column in (1, 2), "x counts in columns, y in rows"
    upper, lower = (
        len(KEYPOINTS) + LIMBS.index(limb) for limb in (("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"))
    )
    torch.testing.assert_close(maps[upper][11, 2:6], torch.full((4,), 0.5 * math.exp(-(0.5**2) / 2)))
    assert maps[upper][4].max() < 1e-6, "a ridge is narrow"
    assert maps[wrist].abs().max() == 0 and maps[lower].abs().max() == 0


def test_feet_face_and_hands_have_maps_of_their_own():
    """A fist: every keypoint of the right hand in one place, everything else unseen."""
    keypoints = torch.zeros(len(WHOLE_BODY_KEYPOINTS), 3)
    hand = WHOLE_BODY_KEYPOINTS.index("right_hand_root")
    keypoints[hand : hand + 21] = torch.tensor([0.25, 0.75, 0.9])
    maps = draw_pose(keypoints, 16, 16)
    assert len(maps) == len(pose_maps(len(WHOLE_BODY_KEYPOINTS))) == 29 + 2 + 9 + 10
    shown = maps.amax(dim=(1, 2)) > 0
    assert shown.nonzero().flatten().tolist() == list(range(len(maps) - 5, len(maps))), "the last five are its fingers"
    assert divmod(int(maps[-1].argmax()), 16) in [(row, column) for row in (11, 12) for column in (3, 4)]
    body = torch.rand(len(KEYPOINTS), 3, generator=torch.Generator().manual_seed(0))
    whole = functional.pad(body, (0, 0, 0, len(WHOLE_BODY_KEYPOINTS) - len(KEYPOINTS)))
    torch.testing.assert_close(draw_pose(whole, 8, 8)[:29], draw_pose(body, 8, 8))


def test_whole_body_poses_reach_the_model():
    widths = replace(WIDTHS, num_keypoints=len(WHOLE_BODY_KEYPOINTS))
    model, conditions = random_model(widths=widths), random_conditions(widths=widths)
    moved = conditions.keypoints.clone()
    moved[:, :, -1, 0] += 0.3  # the tip of the right little finger
    with torch.no_grad():
        difference = model(noisy(), SIGMA, replace(conditions, keypoints=moved)) - model(noisy(), SIGMA, conditions)
    assert difference.abs().max() > 1e-5
    with pytest.raises(ValueError, match=re.escape("18 keypoints came, expected 17 (body) or 133 (whole body)")):
        pose_maps(18)


def test_checkpoint_round_trip_and_errors(tmp_path):
    model = random_model()
    save_model(tmp_path, model, DESCRIPTION)
    loaded, description = load_model(tmp_path)
    assert description.model == CONFIG and description.encoders == ENCODERS
    torch.testing.assert_close(loaded(noisy(), SIGMA, random_conditions()), run(), rtol=0, atol=0)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"num_single_blocks": 1', '"num_single_blocks": 2'))
    with pytest.raises(UserError, match="does not fit"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="is missing"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("reference_on", [True, False])
def test_the_network_says_how_the_clean_latent_differs_from_the_reference(reference_on: bool):
    """Whatever sigma, x - sigma v is the reference (nothing where it is off) plus the same network output."""
    model = random_model()
    with torch.no_grad():
        model.base.proj_out.weight.zero_()
        model.base.proj_out.bias.fill_(0.5)
        model.prediction.latent_std.fill_(2.0)
        conditions = replace(random_conditions(), reference_on=torch.tensor([reference_on] * 2))
        velocity = model(noisy(), SIGMA, conditions)
    clean = noisy() - SIGMA[:, None, None, None, None] * velocity
    known = conditions.reference[:, :, None] if reference_on else torch.zeros(())
    torch.testing.assert_close(clean, known + torch.ones_like(clean))


def test_attention_begins_local_and_blind_to_time():
    torch.manual_seed(0)
    qkv = OmniHumanTransformer(CONFIG, WIDTHS).base.dual_blocks[0].qkv
    positions = torch.tensor([[0, 0, 0], [3, 0, 0], [0, 0, 1], [0, 0, 2]])
    q = qkv.norm_q(qkv.to_q.bias.detach().reshape(1, CONFIG.num_heads, -1)).expand(len(positions), -1, -1)
    turned = rotate(q, rotation(positions, CONFIG.rope_axes, CONFIG.rope_theta))[:, 0]
    same, later, beside, further = (float(turned[0] @ turned[i]) for i in range(4))
    assert same == pytest.approx(later) and same > beside > further


def changed(**fields: torch.Tensor) -> ModelInput:
    given = ModelInput(noisy(), SIGMA, random_conditions())
    own = {name: value for name, value in fields.items() if hasattr(given, name)}
    rest = {name: value for name, value in fields.items() if name not in own}
    return replace(given, **own, conditions=replace(given.conditions, **rest))


WRONG_INPUTS = {
    "noisy is [2, 3, 3, 2, 3]: expected [B, 59, T, h, w]; encode": {"noisy": torch.zeros(2, 3, 3, 2, 3)},
    "noisy is torch.int64: expected floating point; latents are not pixels": {"noisy": noisy().long()},
    "sigma is [300.0, 800.0]: expected floating point from 0 (data) to 1 (noise); divide": {"sigma": 1000 * SIGMA},
    "conditions.text is [64]: expected [2, any, 64]": {"text": torch.zeros(64)},
    "noisy is torch.float64: expected the type of the weights": {"noisy": noisy().double()},
    "sigma is [3]: expected [2], one level of noise a sample": {"sigma": torch.zeros(3)},
    "conditions.reference is [2, 59, 4, 3]: expected [2, 59, 2, 3]": {"reference": torch.zeros(2, 59, 4, 3)},
    "conditions.keypoints is [2, 8, 17, 3]: expected [2, 9, 17, 3]": {"keypoints": torch.zeros(2, 8, 17, 3)},
    "conditions.speech is [2, 3, 8, 64]: expected [2, 3, 8, 1, 64]": {"speech": torch.zeros(2, 3, 8, 64)},
    "conditions.audio_on is torch.float32: expected torch.bool": {"audio_on": torch.ones(2)},
    "conditions.motion is torch.int32: expected floating point": {"motion": torch.zeros(2, 59, 2, 2, 3).int()},
    "text_mask has a sample without any token: where text is off": {"text_mask": torch.zeros(2, 6).bool()},
}


@pytest.mark.parametrize("message", WRONG_INPUTS)
def test_wrong_input_is_named_with_what_was_expected(message: str):
    given = changed(**WRONG_INPUTS[message])
    with pytest.raises(ValueError, match=re.escape(message)):
        random_model()(given.noisy, given.sigma, given.conditions)


def test_an_empty_pack_is_refused():
    with pytest.raises(ValueError, match="the pack is empty"):
        random_model().forward_packed([])


def test_what_is_off_may_even_be_nan():
    off = replace(random_conditions(), reference_on=OFF, reference=torch.full((2, 59, 2, 3), math.nan))
    assert run(off).isfinite().all()


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = random_model()
    with torch.no_grad():
        model.base.proj_out.bias[0] = math.nan
    save_model(tmp_path, model, DESCRIPTION)
    with pytest.raises(UserError, match=r"not a number, in 1 tensors, first base\.proj_out\.bias: take an earlier"):
        load_model(tmp_path)


def test_sizes_that_no_patch_fits_are_refused():
    model = random_model(config=replace(CONFIG, patch_size=2))
    with pytest.raises(ValueError, match="multiples of the patch, 2 latents; crop or pad the video to multiples of 16"):
        model(noisy(), SIGMA, random_conditions())


def test_one_latent_frame_has_no_room_for_motion():
    conditions = replace(random_conditions(num_latents=1), motion_on=~OFF)
    with pytest.raises(ValueError, match="noisy has 1 latent frame, fewer than the 2 of motion"):
        random_model()(noisy()[:, :, :1], SIGMA, conditions)
