"""A stage that starts from an imported base; the base is tiny and random, saved by diffusers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import MotifVideoTransformer3DModel
from tests.tiny import ENCODERS, WIDTHS, write_encoded

from omnihuman.config.compose import compose
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import load_model
from omnihuman.model.import_base import import_base
from omnihuman.training.run import StageRun, train_stage

CONF = Path(__file__).parents[1] / "conf"
OURS = Model(audio_width=16, audio_tokens=3, pose_channels=4, prediction="velocity")
SIZES = {
    "in_channels": 2 * WIDTHS.latent_channels + 1, "out_channels": WIDTHS.latent_channels, "num_attention_heads": 2,
    "attention_head_dim": 16, "num_layers": 1, "num_single_layers": 2, "num_decoder_layers": 1, "patch_size": 1,
    "text_embed_dim": WIDTHS.text_width, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(5)
    MotifVideoTransformer3DModel(**SIZES).save_pretrained(folder / "published")
    import_base(str(folder / "published"), folder / "imported", OURS, replace(ENCODERS, resolutions=(99,), fps=24.0))
    return folder / "imported"


def first_stage(base: Path, model: Model, steps: int = 1, learning_rate: float = 1e-9) -> StageRun:
    stage = Stage(base=str(base), steps=steps, learning_rate=learning_rate)
    return StageRun("1_text_image", stage, Training(global_batch_size=2), model, Diffusion(), seed=3)


def test_a_stage_starts_from_an_imported_base_whatever_the_size_of_clips(base: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True), (False, False)])
    imported, description = load_model(base)
    train_stage(first_stage(base, description.model), tmp_path / "encoded", tmp_path / "models")
    trained, told = load_model(tmp_path / "models/1_text_image")
    assert told.parent == str(base) and told.modalities == ("text", "reference") and told.encoders == ENCODERS
    for name, tensor in imported.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=0, atol=1e-6, msg=name)

    train_stage(first_stage(base, description.model, 2, 1e-2), tmp_path / "encoded", tmp_path / "others")
    others = load_model(tmp_path / "others/1_text_image")[0].state_dict()
    assert not torch.equal(others["base.proj_out.weight"], imported.state_dict()["base.proj_out.weight"])


def test_a_base_for_another_model_is_refused(base: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])
    other = replace(load_model(base)[1].model, rope_theta=3.0)
    with pytest.raises(UserError, match="the base of stage 1_text_image, was imported for another model"):
        train_stage(first_stage(base, other), tmp_path / "encoded", tmp_path / "models")
    with pytest.raises(UserError, match=r"nowhere/model.safetensors is missing"):
        train_stage(first_stage(tmp_path / "nowhere", other), tmp_path / "encoded", tmp_path / "models")


def test_dvc_hashes_the_base_and_only_a_first_stage_has_one():
    stages = compose("tiny", ["stages.1_text_image.base=models/base"], CONF).stages
    assert stages["1_text_image"].starts_from == "models/base"
    assert stages["2_audio"].starts_from == "models/1_text_image"
    with pytest.raises(UserError, match="it starts from 1_text_image already, set it on 1_text_image"):
        compose("tiny", ["stages.2_audio.base=models/base"], CONF)
