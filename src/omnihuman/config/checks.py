"""Rules that span several keys. Every message names the key, its value and the remedy."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omnihuman.batch import KEYPOINT_SETS
from omnihuman.config.render_checks import check_render, check_sampling
from omnihuman.config.rules import LATENT_PIXELS, check_choices
from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.decide import Decide
from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.root import Params
from omnihuman.config.schema.score import Score
from omnihuman.config.schema.split import Split
from omnihuman.config.schema.stage import Training
from omnihuman.config.stage_checks import SHORTEST_WINDOW, check_stages
from omnihuman.errors import UserError

MODALITIES = ("base", "audio", "pose")
_POSITIVE_ENDINGS = ("_seconds", "_pixels", "_bytes", "_megabytes", "fps", "batch_size", "steps", "num_frames", "_rate")
_MAY_BE_ZERO = (
    "warmup_steps", "profile_steps", "loader_workers", "keep_every_steps", "validate_every_steps", "probe_every_steps",
    "gradient_clip", "weight_decay", "guidance_annealing_steps", "guidance_text_steps", "guidance_text",
    "guidance_audio", "guidance_end", "vae_tile_pixels", "render.fps",
)  # fmt: skip
_AT_LEAST_ONE = (
    "shard_clips", "windows_per_clip", "clips_per_worker", "upscale", "num_identities", "clips_per_identity",
    "processes_per_node", "num_heads", "num_resamples", "max_text_tokens", "patch_size", "audio_tokens",
    "accumulate", "keep_checkpoints", "max_tokens_per_pack", "validation_clips",
)  # fmt: skip
_ENCODERS = {
    "video_codec": ("video_weights", "cosine", {"wan": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}),
    "speech_encoder": (
        "speech_weights", "log_mel", {"wav2vec2": "facebook/wav2vec2-base-960h", "whisper": "openai/whisper-base"},
    ),
    "text_encoder": (
        "text_weights",
        "hashed_words",
        {"t5": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "t5gemma2": "Motif-Technologies/Motif-Video-2B"},
    ),
}  # fmt: skip
"""Which key names an encoder's weights, which encoder needs none, and published weights of the others."""
_LAYOUTS = ("plain", "celebv_hq", "ravdess", "hdtf")
_LISTS = (".txt", ".parquet", ".csv")
_OPTIMIZERS = ("adamw", "muon")
_PREDICTIONS = ("velocity", "departure")
_AUDIO_FUSIONS = ("cross_attention", "joint_attention")
_ON_LOSS_SPIKE = ("stop", "skip")
_CHECKPOINTING = ("none", "selective", "full")
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""All keep a float32 master: a step of training is often smaller than the last bit of a weight in bfloat16."""
_COMPUTE = {
    "pool": ("local", "ray"),
    "accelerator": ("auto", "cpu", "cuda"),
    "strategy": ("single", "zero2", "zero3"),
    "offload": ("none", "optimizer", "all"),
}
_SHARE_ENDINGS = (
    "_share", "_eligible", "_fraction", ".share", "activate.text", "activate.reference", "activate.audio",
    "activate.pose", "guidance_dropout.everything", "guidance_dropout.text", "render.keep_colour",
)  # fmt: skip


def check(params: Params) -> None:
    """Raises `UserError` with one line per rule that is broken."""
    problems = [
        *_check_ranges(asdict(params)),
        *_check_collect(params.collect),
        *_check_split(params.split),
        *_check_score(params.score),
        *check_render(params.render),
        *check_choices("caption", params.caption, {"method": ("none", "template", "blip")}),
        *_check_decide(params.decide),
        *_check_encode(params.encode, params.model),
        *_check_poses(params.score, params.encode),
        *_check_model(params.model),
        *_check_training(params.training),
        *_check_compute(params.compute, params.training),
        *check_sampling(params.sampling),
        *check_stages(params.stages, params.training, params.encode),
    ]
    if problems:
        raise UserError("\n".join(problems))


def _check_ranges(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict):
            yield from _check_ranges(value, f"{name}.")
        elif isinstance(value, (int, float)):
            if name.endswith(_SHARE_ENDINGS) and not 0 <= value <= 1:
                yield f"{name} is {value}: a share lies between 0 and 1"
            may_be_zero = name.endswith(_MAY_BE_ZERO)
            if name.endswith(_POSITIVE_ENDINGS) and not may_be_zero and value <= 0:
                yield f"{name} is {value}: set it above 0"
            if may_be_zero and value < 0:
                yield f"{name} is {value}: set it to 0 or above"
            if name.endswith(_AT_LEAST_ONE) and value < 1:
                yield f"{name} is {value}: set at least 1"
            if ".num_" in name and value < 0:
                yield f"{name} is {value}: a number of things is not negative"
            if ".margin_" in name and value < 0:
                yield f"{name} is {value}: by how much a model may fall behind is not negative"
            if name.endswith("confidence") and not 0 < value < 1:
                yield f"{name} is {value}: set it between 0 and 1, e.g. 0.95"


def _check_collect(collect: Collect) -> Iterator[str]:
    yield from check_choices("collect", collect, {"layout": _LAYOUTS})
    if collect.layout != "plain" and collect.source.lower().endswith(_LISTS):
        yield f"collect.layout is {collect.layout}: a list or table names the files itself, set it to plain"
    if not 0 < collect.test_share < 1:
        yield f"collect.test_share is {collect.test_share}: both splits need identities, set it between 0 and 1"


def _check_split(split: Split) -> Iterator[str]:
    if split.min_clip_seconds >= split.max_clip_seconds:
        yield (
            f"split.min_clip_seconds is {split.min_clip_seconds}: set it below"
            f" split.max_clip_seconds ({split.max_clip_seconds})"
        )


def _check_score(score: Score) -> Iterator[str]:
    for key in ("imported_source", "imported_version"):
        if score.imported and not getattr(score, key):
            yield f"score.{key} is empty: say who measured {score.imported} and with which version"


def _check_decide(decide: Decide) -> Iterator[str]:
    for name, rule in decide.rules.items():
        if rule.modality not in MODALITIES:
            yield f"decide.rules.{name}.modality is {rule.modality!r}: one of {', '.join(MODALITIES)}"
        if rule.at_least is None and rule.at_most is None:
            yield f"decide.rules.{name} has no bound: set at_least or at_most"


def _check_encode(encode: Encode, model: Model) -> Iterator[str]:
    if encode.keypoints not in KEYPOINT_SETS:
        yield f"encode.keypoints: unknown '{encode.keypoints}', expected one of {', '.join(KEYPOINT_SETS)}"
    if (encode.num_frames - 1) % 4:
        near = encode.num_frames // 4 * 4 + 1
        yield f"encode.num_frames is {encode.num_frames}: the codec takes 4k + 1 frames, set {near} or {near + 4}"
    elif encode.num_frames < SHORTEST_WINDOW:
        yield f"encode.num_frames is {encode.num_frames}: five are motion frames, set at least {SHORTEST_WINDOW}"
    multiple = LATENT_PIXELS * model.patch_size
    if encode.size_multiple <= 0 or encode.size_multiple % multiple:
        yield (
            f"encode.size_multiple is {encode.size_multiple}: set a multiple of {multiple}"
            f" ({LATENT_PIXELS} pixels of a latent times model.patch_size {model.patch_size})"
        )
    rising = sorted(set(encode.resolutions))
    if not rising or list(encode.resolutions) != rising:
        yield f"encode.resolutions is {list(encode.resolutions)}: name at least one, from low to high, each once"
    if rising and rising[0] < encode.size_multiple**2:
        yield (
            f"encode.resolutions is {list(encode.resolutions)}: a square of encode.size_multiple"
            f" ({encode.size_multiple}) has {encode.size_multiple**2}, set at least that"
        )
    if encode.max_aspect < 1:
        yield f"encode.max_aspect is {encode.max_aspect}: it divides the longer side by the shorter, set at least 1"
    yield from _check_encoders(encode)


def _check_poses(score: Score, encode: Encode) -> Iterator[str]:
    if score.pose_sha256 != encode.pose_sha256 or bool(score.pose_weights) != bool(encode.pose_weights):
        yield (
            f"encode.pose_weights is {encode.pose_weights or 'empty'}, score.pose_weights is"
            f" {score.pose_weights or 'empty'}: a pose that was found to score a clip has to be found again to train on"
            " it, set both, and both hashes, alike"
        )


def _check_encoders(encode: Encode) -> Iterator[str]:
    for key, (weights_key, without, hub_ids) in _ENCODERS.items():
        name, weights = getattr(encode, key), getattr(encode, weights_key)
        if name not in (without, *hub_ids):
            yield f"encode.{key}: unknown '{name}', expected one of {', '.join((without, *hub_ids))}"
        elif name == without and weights:
            yield (
                f"encode.{weights_key} is {weights}: {without} has no weights, leave it empty or set encode.{key}"
                f" to {' or '.join(hub_ids)}"
            )
        elif name != without and not weights:
            yield (
                f"encode.{weights_key} is empty: {name} needs a folder or hub id, e.g. {hub_ids[name]},"
                f" or set encode.{key}={without}"
            )
    tile, stride = encode.video_tile_pixels, encode.video_tile_stride_pixels
    for key, value in (("video_tile_pixels", tile), ("video_tile_stride_pixels", stride)):
        if value % LATENT_PIXELS:
            yield f"encode.{key} is {value}: set a multiple of {LATENT_PIXELS}, the pixels of a latent"
    if stride > tile:
        yield (
            f"encode.video_tile_stride_pixels is {stride}: tiles of encode.video_tile_pixels ({tile}) would leave gaps,"
            " set at most that"
        )
    if encode.video_tiling and encode.video_codec == "cosine":
        yield "encode.video_tiling is on: cosine takes pictures of any size whole, set it to false"


def _check_model(model: Model) -> Iterator[str]:
    for key, known in (("prediction", _PREDICTIONS), ("audio_fusion", _AUDIO_FUSIONS)):
        if (value := getattr(model, key)) not in known:
            yield f"model.{key}: unknown '{value}', expected one of {', '.join(known)}"
    if model.num_heads <= 0 or model.width % model.num_heads:
        yield f"model.width is {model.width}: set a multiple of model.num_heads ({model.num_heads})"
        return
    head = model.width // model.num_heads
    if sum(model.rope_axes) != head or any(axis <= 0 or axis % 2 for axis in model.rope_axes):
        yield (
            f"model.rope_axes is {list(model.rope_axes)}: three even numbers that add up to"
            f" model.width / model.num_heads = {head}"
        )


def _check_training(training: Training) -> Iterator[str]:
    choices = {
        "optimizer": _OPTIMIZERS,
        "precision": _PRECISIONS,
        "activation_checkpointing": _CHECKPOINTING,
        "on_loss_spike": _ON_LOSS_SPIKE,
    }
    yield from check_choices("training", training, choices)
    if not 0 <= training.ema_decay < 1:
        yield f"training.ema_decay is {training.ema_decay}: set it below 1, e.g. 0.999, or to 0 for no average"
    if training.loss_spike_factor and training.loss_spike_factor <= 1:
        yield f"training.loss_spike_factor is {training.loss_spike_factor}: set it above 1, e.g. 3, or to 0 for none"


def _check_compute(compute: Compute, training: Training) -> Iterator[str]:
    yield from check_choices("compute", compute, _COMPUTE)
    if compute.accumulate >= 1 and training.global_batch_size % compute.accumulate:
        yield (
            f"compute.accumulate is {compute.accumulate}: set a divisor of training.global_batch_size"
            f" ({training.global_batch_size})"
        )
    if compute.strategy == "single" and compute.processes_per_node > 1:
        yield (
            f"compute.processes_per_node is {compute.processes_per_node}: compute.strategy=single is one process, set 1"
            " or zero2"
        )
    if training.optimizer == "muon" and compute.strategy != "single":
        yield (
            f"training.optimizer is muon: its steps need whole matrices, which compute.strategy={compute.strategy}"
            " divides; set training.optimizer=adamw (with a lower learning rate), or compute.strategy=single"
        )
    if compute.offload != "none" and compute.strategy == "single":
        yield f"compute.offload is {compute.offload}: only zero2 and zero3 can, set compute.strategy"
    if compute.offload == "all" and compute.strategy != "zero3":
        yield "compute.offload is all: only zero3 divides the weights, set compute.strategy=zero3 or offload=optimizer"
