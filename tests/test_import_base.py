"""Published weights: import, every fault of a file, export, and the comparison with diffusers.

All weights are tiny and random, saved by diffusers itself.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import MotifVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from tests.tiny import ENCODERS, random_conditions

from omnihuman import cli
from omnihuman.config.compose import compose, dump
from omnihuman.config.schema.model import Model
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.base_input import base_output
from omnihuman.model.checkpoint import load_description, load_model
from omnihuman.model.export_base import export_base
from omnihuman.model.import_base import CONDITIONS, Count, conditions, import_base
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.published import model_config, published_name
from omnihuman.model.published_check import BaseShape
from omnihuman.model.verify_base import verify_base

ROOT = Path(__file__).parents[1]
TINY = {
    "in_channels": 33, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_single_layers": 3, "num_decoder_layers": 1, "mlp_ratio": 4.0, "patch_size": 2, "text_embed_dim": 32,
    "image_embed_dim": 8, "rope_theta": 1e4, "rope_axes_dim": (4, 6, 6), "enable_text_cross_attention_dual": True,
    "enable_text_cross_attention_single": True,
}  # fmt: skip
FULL = TINY | {
    "num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 12, "num_single_layers": 24,
    "num_decoder_layers": 8, "text_embed_dim": 2560, "image_embed_dim": 1152, "rope_axes_dim": (16, 56, 56),
    "enable_text_cross_attention_dual": False,
}  # fmt: skip
"""Motif-Video-2B."""
OURS = Model(audio_width=16, audio_tokens=3, pose_channels=4)
FITTING = replace(ENCODERS, latent_channels=16, text_width=32)
FILE = "diffusion_pytorch_model.safetensors"
INDEX = f"{FILE}.index.json"


@pytest.fixture(scope="module")
def published() -> MotifVideoTransformer3DModel:
    torch.manual_seed(0)
    model = MotifVideoTransformer3DModel(**TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def saved(published: MotifVideoTransformer3DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "transformer"
    published.save_pretrained(folder)
    return folder


@pytest.fixture
def place(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "place"))


def take_in(place: Path, out: Path, encoders: Encoders = FITTING, **options) -> OmniHumanTransformer:
    import_base(str(place), out, OURS, encoders, **options)
    return load_model(out)[0]


def refusal(place: Path | str, tmp_path: Path, encoders: Encoders = FITTING, **options) -> str:
    with pytest.raises(UserError) as error:
        import_base(str(place), tmp_path / "out", OURS, encoders, **options)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*")), "something was left behind"
    return str(error.value)


def change(place: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(place / FILE)
    edit(weights)
    save_file(weights, place / FILE)


def pipeline(model: MotifVideoTransformer3DModel, folder: Path) -> Path:
    model.save_pretrained(folder / "transformer")
    index = {"_class_name": "MotifVideoPipeline", "transformer": ["diffusers", "MotifVideoTransformer3DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


SAVED: dict[str, Callable[[MotifVideoTransformer3DModel, Path], object]] = {
    "single": lambda model, folder: model.save_pretrained(folder),
    "shards": lambda model, folder: model.save_pretrained(folder, max_shard_size="200KB"),
    "pipeline": pipeline,
    "variant": lambda model, folder: model.save_pretrained(folder, variant="fp16"),
    "shards of a variant": lambda model, folder: model.save_pretrained(folder, variant="fp16", max_shard_size="200KB"),
}


@pytest.mark.parametrize("how", SAVED)
def test_every_published_layout_is_imported_bit_by_bit(how: str, published, tmp_path: Path) -> None:
    SAVED[how](published, tmp_path / "place")
    files = list((tmp_path / "place").rglob("*.safetensors"))
    assert (len(files) > 2) == ("shards" in how) and (".fp16" in files[0].name) == ("variant" in how)
    model = take_in(tmp_path / "place", tmp_path / "out")
    expected, came = published.state_dict(), model.base.state_dict()
    assert len(expected) == len(came)
    assert all(torch.equal(came[name], expected[published_name(name, model.config)]) for name in came)
    description = load_description(tmp_path / "out")
    assert (description.stage, description.num_steps) == ("base", 0)
    assert description.parent == "place"
    assert set(description.source_sha256) == {path.name for path in files}


def test_precision_stays_as_published_and_both_variants_can_be_had(published, place: Path, tmp_path: Path) -> None:
    half = MotifVideoTransformer3DModel(**TINY).bfloat16()
    half.load_state_dict(published.state_dict())
    half.save_pretrained(place, variant="bf16")
    take_in(place, tmp_path / "half", variant="bf16")
    take_in(place, tmp_path / "plain")
    stored = load_file(tmp_path / "half/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert {t.dtype for t in load_file(tmp_path / "plain/model.safetensors").values()} == {torch.float32}
    assert "no variant fp8: take one of no --variant, --variant bf16" in refusal(place, tmp_path, variant="fp8")
    torch.testing.assert_close(
        stored["base.proj_out.weight"], published.state_dict()["proj_out.weight"].bfloat16(), rtol=0, atol=0
    )


def test_a_tensor_of_another_precision_keeps_it(place: Path, tmp_path: Path) -> None:
    change(place, lambda weights: weights.update({"proj_out.bias": weights["proj_out.bias"].half()}))
    take_in(place, tmp_path / "out")
    stored = load_file(tmp_path / "out/model.safetensors")
    assert stored["base.proj_out.bias"].dtype == torch.float16
    assert stored["base.proj_out.weight"].dtype == torch.float32


def test_the_seed_decides_the_conditions_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    models = [take_in(saved, tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    same, again, other = (conditions(model) for model in models)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert any(not torch.equal(same[name], other[name]) for name in same)
    assert torch.equal(models[0].base.proj_out.weight, models[2].base.proj_out.weight)
    assert torch.get_default_dtype() == torch.float32
    import_base(str(saved), tmp_path / "3", OURS, FITTING)
    torch.random.set_rng_state(before)


@torch.no_grad()
@pytest.mark.parametrize("driven", [False, True], ids=["all off", "audio and pose on"])
def test_an_imported_model_says_exactly_what_its_base_says(driven: bool, saved: Path, tmp_path: Path) -> None:
    model = take_in(saved, tmp_path / "out")
    given = random_conditions(height=4, width=6, widths=model.widths)
    off = torch.zeros(2, dtype=torch.bool)
    given = replace(given, reference_on=off, motion_on=off, audio_on=off | driven, pose_on=off | driven)
    noisy = torch.randn(2, 16, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    sigma = torch.tensor([0.3, 0.85])
    alone = torch.cat([noisy, torch.zeros(2, 17, 3, 4, 6)], dim=1)
    expected = base_output(model.base, alone, sigma, given.text, given.text_mask)
    assert expected.std() > 0.01
    assert torch.equal(model(noisy, sigma, given), expected)


def test_the_full_configuration_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape) for name, value in MotifVideoTransformer3DModel(**FULL).state_dict().items()
        }
    params = compose("demo", ["groups.model=motif_2b"], ROOT / "conf")
    config, channels, text_width = model_config(FULL | {"mlp_ratio": 4}, params.model)
    assert config == params.model, "conf/model/motif_2b.yaml has other sizes than the release"
    base = BaseShape(config, channels, text_width).on_meta().state_dict()
    assert {published_name(name, config): tuple(value.shape) for name, value in base.items()} == expected
    assert len(expected) == 902 and Count.of(base.values()).parameters == 2_037_809_600
    widths = replace(FITTING, latent_channels=16, text_width=2560, speech_layers=13, speech_width=768).widths
    with torch.device("meta"):
        ours = Count.of(conditions(OmniHumanTransformer(config, widths)).values())
    print(f"{Count.of(base.values())} of the base; {ours} of the conditions")
    assert ours.tensors > 36 * 6 and ours.parameters < 0.25 * 2.04e9


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], object]:
    def edit(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if old in name]:
            weights[name.replace(old, new)] = weights.pop(name)

    return edit


def spoil(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights["proj_out.weight"].view(-1)[:3].fill_(value)


def as_earlier(weights: dict[str, torch.Tensor]) -> None:
    """Query projection, LayerNorm and output in the block itself; keys and values of the joint attention."""
    for name in [name for name in weights if ".cross_attn." in name]:
        block, _, rest = name.partition(".cross_attn.")
        tensor = weights.pop(name)
        if rest.startswith(("to_q.", "to_out.0.")):
            new = "cross_attn_query_proj." if rest.startswith("to_q.") else "cross_attn_out_proj."
            weights[f"{block}.{new}{rest.rpartition('.')[2]}"] = tensor
            weights[f"{block}.cross_attn_query_norm.weight"] = torch.ones(32)
            weights[f"{block}.cross_attn_query_norm.bias"] = torch.zeros(32)


FAULTS = {
    "missing": (lambda w: w.pop("proj_out.bias"), ["1 missing: proj_out.bias"]),
    "surplus": (lambda w: w.update({"extra.weight": torch.ones(2)}), ["1 surplus: extra.weight"]),
    "misshapen": (
        lambda w: w.update({"proj_out.bias": torch.ones(5)}),
        ["1 of another shape: proj_out.bias is [5], expected [64]"],
    ),
    "all at once": (
        rename("single_transformer_blocks.2", "single_transformer_blocks.3"),
        ["14 missing: single_transformer_blocks.2.", "14 surplus: single_transformer_blocks.3.", "and 4 more"],
    ),
    "NaN": (spoil(float("nan")), ["1 tensors hold NaN or infinite values: proj_out.weight (3 of 2048 values)"]),
    "infinite": (spoil(float("inf")), ["proj_out.weight (3 of 2048 values)"]),
    "quantised": (
        lambda w: w.update({"proj_out.weight": w["proj_out.weight"].to(torch.float8_e4m3fn)}),
        ["proj_out.weight is F8_E4M3: quantised", "F32, F16 or BF16"],
    ),
    "earlier text attention": (
        as_earlier,
        ["earlier layout of Motif-Video", "LayerNorm", "cross_attn_query_proj", "cross_attn.{to_q,"],
    ),
    "text attention with a LayerNorm": (
        lambda w: w.update({"transformer_blocks.0.cross_attn.norm_q.bias": torch.zeros(16)}),
        ["another layout (transformer_blocks.0.cross_attn.norm_q.bias)", "norm_q,norm_k,to_out.0}"],
    ),
    "text attention inside attn": (
        rename(".cross_attn.to_q.", ".attn.cross_attn_q."),
        ["another layout (", ".attn.cross_attn_q.weight", "to_out.0}"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_tensor_is_refused_and_named(fault: str, place: Path, tmp_path: Path) -> None:
    edit, said = FAULTS[fault]
    change(place, edit)
    message = refusal(place, tmp_path)
    assert not [part for part in said if part not in message], message


def of_class(name: str) -> Callable[[Path], object]:
    return lambda place: (place / "config.json").write_text(json.dumps({"_class_name": name}))


def set_config(**changes: object) -> Callable[[Path], object]:
    def edit(place: Path) -> None:
        config = json.loads((place / "config.json").read_text())
        kept = {key: value for key, value in (config | changes).items() if value is not ...}
        (place / "config.json").write_text(json.dumps(kept))

    return edit


def cut(place: Path) -> None:
    (place / FILE).write_bytes((place / FILE).read_bytes()[:-100])


def pickled(place: Path) -> None:
    torch.save(load_file(place / FILE), place / "diffusion_pytorch_model.bin")
    (place / FILE).unlink()


def sharded(place: Path) -> dict:
    model = MotifVideoTransformer3DModel.from_pretrained(place)
    (place / FILE).unlink()
    model.save_pretrained(place, max_shard_size="200KB")
    return json.loads((place / INDEX).read_text())


def lost_shard(place: Path) -> None:
    (place / max(sharded(place)["weight_map"].values())).unlink()


def outside(place: Path) -> None:
    index = sharded(place)
    index["weight_map"]["proj_out.bias"] = "../other.safetensors"
    (place / INDEX).write_text(json.dumps(index))


def twice(place: Path) -> None:
    names = sorted(set(sharded(place)["weight_map"].values()))
    first = load_file(place / names[0])
    save_file(load_file(place / names[1]) | dict([next(iter(first.items()))]), place / names[1])


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "HunyuanVideo": (of_class("HunyuanVideoTransformer3DModel"), ["is of a HunyuanVideo", "(HunyuanVideo)", "MMDiT"]),
    "Wan": (of_class("WanTransformer3DModel"), ["WanTransformer3DModel (Wan), not an MMDiT that can be imported"]),
    "Mochi": (of_class("MochiTransformer3DModel"), ["MochiTransformer3DModel (Mochi), not an MMDiT"]),
    "another class": (of_class("UNet2DModel"), ["UNet2DModel, not an MMDiT", "Motif-Technologies/Motif-Video-2B"]),
    "no class": (set_config(_class_name=...), ["without a class name"]),
    "not JSON": (lambda place: (place / "config.json").write_text("{"), ["config.json is not a JSON object"]),
    "a list": (lambda place: (place / "config.json").write_text("[]"), ["config.json is not a JSON object"]),
    "no config": (lambda place: (place / "config.json").unlink(), ["config.json is missing", "transformer"]),
    "size missing": (set_config(rope_theta=...), ["config.json has no 'rope_theta'"]),
    "impossible size": (set_config(num_attention_heads="many"), ["config.json has a size that cannot be", "many"]),
    "no heads": (set_config(num_attention_heads=0), ["config.json"]),
    "layer norm": (set_config(qk_norm="layer_norm"), ["qk_norm is 'layer_norm'"]),
    "truncated": (cut, [FILE, "truncated or damaged: fetch it again"]),
    "empty": (lambda place: (place / FILE).write_bytes(b""), ["truncated or damaged"]),
    "noise": (lambda place: (place / FILE).write_bytes(bytes(range(256)) * 9), ["truncated or damaged"]),
    "pickle": (pickled, ["a pickle can run any program", ".safetensors", "use_safetensors=False"]),
    "no weights": (lambda place: (place / FILE).unlink(), ["holds no diffusion_pytorch_model.safetensors"]),
    "lost shard": (lost_shard, ["names 1 files that are missing, e.g. diffusion_pytorch_model-0000", "fetch them"]),
    "index not JSON": (lambda place: (place / INDEX).write_text("?"), ["is not an index of shards"]),
    "index without map": (lambda place: (place / INDEX).write_text("[]"), ["is not an index of shards"]),
    "shard elsewhere": (outside, ["'../other.safetensors', which is not a .safetensors file beside it"]),
    "tensor twice": (twice, ["lies in diffusion_pytorch_model-00001", "and in diffusion_pytorch_model-00002"]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_refused_with_the_remedy(fault: str, place: Path, tmp_path: Path) -> None:
    edit, said = BROKEN[fault]
    edit(place)
    message = refusal(place, tmp_path)
    assert not [part for part in said if part not in message], message


def test_what_is_no_base_is_refused(saved: Path, place: Path, tmp_path: Path) -> None:
    torch.save({}, place / "weights.pt")
    assert "a pickle can run any program" in refusal(place / "weights.pt", tmp_path)
    assert "is a file: name the folder" in refusal(place / FILE, tmp_path)
    assert "no such folder" in refusal("/no/such/folder", tmp_path)
    take_in(saved, tmp_path / "ours")
    assert "is a checkpoint of this program already" in refusal(tmp_path / "ours", tmp_path)
    before = (place / FILE).read_bytes()
    with pytest.raises(UserError, match="exists already: name a new folder"):
        import_base(str(saved), place, OURS, FITTING)
    assert (place / FILE).read_bytes() == before


def test_encoders_of_other_widths_are_refused_unless_allowed(saved: Path, tmp_path: Path) -> None:
    message = refusal(saved, tmp_path, ENCODERS)
    assert "latents of 16 channels" in message and "encode.video_codec=cosine makes" in message
    assert "text of width 32" in message and "encode.text_encoder=hashed_words makes 64" in message
    assert "encode.video_codec" not in refusal(saved, tmp_path, replace(ENCODERS, latent_channels=16))
    import_base(str(saved), tmp_path / "ours", OURS, ENCODERS, allow_other_encoders=True)
    assert load_description(tmp_path / "ours").encoders.video_codec == "unknown"
    with pytest.raises(UserError, match="imported with --allow-other-encoders"):
        load_model(tmp_path / "ours")
    export_base(tmp_path / "ours", tmp_path / "out")
    assert same_tensors(saved, tmp_path / "out")


def same_tensors(one: Path, other: Path) -> bool:
    loaded = [
        {n: t for path in folder.glob("diff*.safetensors") for n, t in load_file(path).items()}
        for folder in (one, other)
    ]
    first, second = loaded
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


@torch.no_grad()
@pytest.mark.parametrize("gigabytes", [10.0, 2e-4])
def test_what_is_exported_is_loaded_by_diffusers_and_equal(gigabytes: float, published, saved, tmp_path: Path) -> None:
    take_in(saved, tmp_path / "ours")
    done = export_base(tmp_path / "ours", tmp_path / "out", max_shard_gigabytes=gigabytes)
    assert (done.num_files > 2) == (gigabytes < 1) and (tmp_path / "out" / INDEX).exists() == (gigabytes < 1)
    assert done.num_tensors == len(published.state_dict()) and same_tensors(saved, tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")]
    assert max(sizes) < gigabytes * 1e9 + 20_000
    again = MotifVideoTransformer3DModel.from_pretrained(tmp_path / "out").eval()
    given = {
        "hidden_states": torch.randn(1, 33, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
        "timestep": torch.tensor([400.0]),
        "encoder_hidden_states": torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1)),
    }
    expected = published(**given).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(again(**given).sample, expected, atol=1e-5, rtol=0)  # kernels differ with alignment
    assert {k: v for k, v in again.config.items() if not k.startswith("_")} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in published.config.items() if not k.startswith("_")
    }


def test_conditions_travel_with_the_base_when_asked(saved: Path, tmp_path: Path) -> None:
    model = take_in(saved, tmp_path / "ours", seed=5)
    done = export_base(tmp_path / "ours", tmp_path / "bare")
    assert done.num_conditions == len(conditions(model)) and not (tmp_path / "bare" / CONDITIONS).exists()
    export_base(tmp_path / "ours", tmp_path / "out", with_conditions=True)
    again = take_in(tmp_path / "out", tmp_path / "again", seed=6)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert CONDITIONS in load_description(tmp_path / "again").source_sha256
    with pytest.raises(UserError, match=r"(?s)does not fit the model that is configured.*of another shape: audio"):
        import_base(str(tmp_path / "out"), tmp_path / "other", replace(OURS, audio_width=32), FITTING)
    (tmp_path / "again/model.json").write_text(
        (tmp_path / "again/model.json").read_text().replace('"velocity"', '"departure"')
    )
    with pytest.raises(UserError, match=r"model\.prediction=departure"):
        export_base(tmp_path / "again", tmp_path / "never")


def tamper(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One tensor of what diffusers loads is another than in the file."""
    original = MotifVideoTransformer3DModel.from_pretrained

    def changed(*arguments, **options) -> MotifVideoTransformer3DModel:
        model = original(*arguments, **options)
        with torch.no_grad():
            model.get_parameter(name).mul_(1.5)
        return model

    monkeypatch.setattr(MotifVideoTransformer3DModel, "from_pretrained", changed)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "single_transformer_blocks.0.cross_attn.to_out.0.weight"), ("bfloat16", "x_embedder.proj.weight")],
)
def test_verify_tells_equal_from_changed_weights(dtype: str, name: str, saved: Path, place: Path, monkeypatch) -> None:
    compared = verify_base(str(saved), dtype=dtype)
    assert compared.matches and compared.std > 0.01 and "match" in compared.lines()[-1]
    tamper(monkeypatch, name)
    assert not verify_base(str(saved), dtype=dtype).matches
    monkeypatch.undo()
    change(place, lambda weights: weights["proj_out.weight"].zero_())
    change(place, lambda weights: weights["proj_out.bias"].zero_())
    with pytest.raises(UserError, match="the output is constant"):
        verify_base(str(place))
    with pytest.raises(UserError, match="--device nowhere cannot be used"):
        verify_base(str(saved), device="nowhere")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(dump(compose("demo", conf=ROOT / "conf")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_line_from_import_to_verify(saved: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "import", str(saved), "models/base"]) == 2
    error = capsys.readouterr().err
    assert "set encode.video_codec" in error and "--allow-other-encoders" in error and not Path("models").exists()
    assert cli.main(["checkpoint", "import", str(saved), "models/base", "--allow-other-encoders", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "from " in said and "seed 3" in said and "tensors, " in said and "of the conditions" in said
    assert "model.width=32" in said and "model.rope_axes=[4,6,6]" in said and "model.text_attention_dual=true" in said
    assert cli.main(["checkpoint", "import", str(saved), "models/base", "--allow-other-encoders"]) == 2
    assert "models/base exists already" in capsys.readouterr().err
    assert cli.main(["checkpoint", "export", "models/base", "out", "--max-shard-gigabytes", "0"]) == 2
    assert "set it above 0" in capsys.readouterr().err
    assert cli.main(["checkpoint", "export", "models/base", "out"]) == 0
    assert "are left out; --with-conditions" in capsys.readouterr().out and same_tensors(saved, Path("out"))
    assert cli.main(["checkpoint", "verify", "out"]) == 0
    assert "the forward passes match" in capsys.readouterr().out
    assert cli.main(["checkpoint", "export", "nowhere", "out2"]) == 2
    assert "nowhere/model.safetensors is missing" in capsys.readouterr().err


def test_verify_ends_with_1_when_the_classes_differ(saved: Path, monkeypatch, capsys) -> None:
    tamper(monkeypatch, "transformer_blocks.1.ff.net.2.weight")
    assert cli.main(["checkpoint", "verify", str(saved)]) == 1
    assert "DO NOT MATCH" in capsys.readouterr().out
