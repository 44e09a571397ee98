"""Import of a published base: its tensors under our names, with our conditions around it, as a checkpoint of ours.

Everything that headers tell is checked before a tensor is read. Then one file after the other goes into a model of the
checkpoint's own precision, so that the base is never in memory twice.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from omnihuman.config.schema.model import Model
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import UNKNOWN_ENCODER, ModelDescription, save_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.published import published_name
from omnihuman.model.published_check import BaseShape, base_shape, differences, listed
from omnihuman.model.published_files import TensorHeader, file_headers, open_published
from omnihuman.storage.files import file_sha256, publish_folder

STAGE = "base"
CONDITIONS = "omnihuman_conditions.safetensors"
"""Our tensors beside a published base; `export --with-conditions` writes it."""
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Count:
    """How much of a model there is."""

    tensors: int
    parameters: int

    @staticmethod
    def of(tensors: Iterable[Tensor]) -> "Count":
        """Of tensors with or without memory."""
        sizes = [tensor.numel() for tensor in tensors]
        return Count(len(sizes), sum(sizes))

    def __str__(self) -> str:
        """E.g. `902 tensors, 2.04 B parameters`."""
        billions = f"{self.parameters / 1e9:.2f} B" if self.parameters >= 5e7 else f"{self.parameters:,}"
        return f"{self.tensors} tensors, {billions} parameters"


@dataclass(frozen=True)
class Imported:
    """What an import wrote."""

    description: ModelDescription
    base: Count
    conditions: Count


def import_base(
    place: str,
    out: Path,
    ours: Model,
    encoders: Encoders,
    *,
    seed: int = 0,
    variant: str = "",
    allow_other_encoders: bool = False,
) -> Imported:
    """Writes a checkpoint of ours from a published base.

    Args:
        place: see `open_published`.
        out: a folder that does not exist yet, or is empty.
        ours: sizes of our conditions; those of the base come from its config.json.
        encoders: that the conditions' widths come from.
        seed: of our conditions' initial weights, unless the folder holds `CONDITIONS`.
        allow_other_encoders: import although the configured encoders are not those of the base; the checkpoint can be
            exported, and neither trained nor rendered with.

    Raises:
        UserError: the base cannot be imported; the message lists why. Nothing is written then.
    """
    check_new(out)
    files = open_published(place, variant)
    shape = base_shape(files, ours)
    encoders = _fitting(encoders, shape, allow_other_encoders)
    given = _given_conditions(files.folder / CONDITIONS, shape, encoders)
    model = _new_model(shape.model, encoders, _main_type(files.headers), seed)
    names = {published_name(name, shape.model): name for name in model.base.state_dict()}
    _fill(
        model.base,
        ((names[name], tensor) for name, tensor in files.tensors()),
        lambda n: published_name(n, shape.model),
    )
    modalities: tuple[str, ...] = ("text",)
    how = f"freshly initialised with seed {seed}"
    if given:
        _fill(model, _read(given), str)
        modalities, how = _modalities(given), f"from {CONDITIONS}"
    log.info("hashing the files")
    description = ModelDescription(
        stage=STAGE,
        parent=files.source,
        note=f"imported, {'variant ' + files.variant if files.variant else 'plain weights'}; our conditions {how}",
        num_steps=0,
        modalities=modalities,
        num_clips={},
        model=shape.model,
        encoders=encoders,
        source_sha256={path.name: file_sha256(path) for path in [*files.paths, *([given] if given else [])]},
    )
    with publish_folder(out) as folder:
        log.info("writing %s", out)
        save_model(folder, model, description, dtype=None)
    return Imported(description, Count.of(model.base.state_dict().values()), Count.of(conditions(model).values()))


def conditions(model: OmniHumanTransformer) -> dict[str, Tensor]:
    """All tensors that are not the base's."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("base.")}


def check_new(out: Path) -> None:
    """Raises `UserError` where a folder holds something, so that nothing of the user's is replaced."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: name a new folder, or remove it first")


def _fitting(encoders: Encoders, shape: BaseShape, allow_other: bool) -> Encoders:
    """The encoders, where they give what the base takes."""
    widths, problems, unknown = encoders.widths, [], {}
    if widths.latent_channels != shape.latent_channels:
        problems.append(
            f"the base takes latents of {shape.latent_channels} channels, and encode.video_codec="
            f"{encoders.video_codec} makes {widths.latent_channels}: set encode.video_codec to the base's"
            + (" (wan for 16 channels)" if shape.latent_channels == 16 else "")
        )
        unknown |= {"video_codec": UNKNOWN_ENCODER, "latent_channels": shape.latent_channels}
    if widths.text_width != shape.text_width:
        problems.append(
            f"the base takes text of width {shape.text_width}, and encode.text_encoder={encoders.text_encoder} makes"
            f" {widths.text_width}: set encode.text_encoder to the base's"
            + (" (T5Gemma2 for 2560)" if shape.text_width == 2560 else "")
        )
        unknown |= {"text_encoder": UNKNOWN_ENCODER, "text_width": shape.text_width}
    if problems and not allow_other:
        flag = (
            "or add --allow-other-encoders, for a checkpoint that can be exported and neither trained nor rendered with"
        )
        raise UserError("\n".join([*problems, flag]))
    for problem in problems:
        log.warning("%s", problem)
    return replace(encoders, **unknown)


def _main_type(headers: Mapping[str, TensorHeader]) -> torch.dtype:
    """The type of most parameters."""
    sizes: dict[str, int] = {}
    for header in headers.values():
        sizes[header.dtype] = sizes.get(header.dtype, 0) + torch.Size(header.shape).numel()
    return _TYPES[max(sizes, key=lambda name: sizes[name])]


def _new_model(config: Model, encoders: Encoders, dtype: torch.dtype, seed: int) -> OmniHumanTransformer:
    with torch.random.fork_rng(devices=[]), _default_type(dtype):
        torch.manual_seed(seed)
        return OmniHumanTransformer(config, encoders.widths)


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]], called: Callable[[str], str]) -> None:
    """Puts tensors into a module, each in its own precision.

    Args:
        called: the name under which people know a tensor.

    Raises:
        UserError: some have values that are not numbers.
    """
    parameters, damaged = dict(module.named_parameters()), []
    for name, tensor in tensors:
        if bad := int((~tensor.isfinite()).sum()):
            damaged.append(f"{called(name)} ({bad} of {tensor.numel()} values)")
        elif tensor.dtype == parameters[name].dtype:
            parameters[name].data.copy_(tensor)
        else:
            parameters[name].data = tensor.clone()
    if damaged:
        raise UserError(f"{len(damaged)} tensors hold NaN or infinite values: {listed(damaged)}; fetch them again")


def _given_conditions(path: Path, shape: BaseShape, encoders: Encoders) -> Path | None:
    """Our tensors beside the base, if they lie there and fit the configured sizes."""
    if not path.is_file():
        return None
    with torch.device("meta"):
        expected = conditions(OmniHumanTransformer(shape.model, encoders.widths))
    problems = differences(dict(file_headers(path)), {name: tuple(value.shape) for name, value in expected.items()})
    if problems:
        head = f"{path} does not fit the model that is configured: set model.* and encode.* as where it was trained,"
        raise UserError("\n".join([f"{head} or remove it to begin with fresh conditions", *problems]))
    return path


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # not a mapping
            yield name, file.get_tensor(name)


def _modalities(path: Path) -> tuple[str, ...]:
    with safe_open(path, framework="pt") as file:
        return tuple((file.metadata() or {}).get("modalities", "text").split(","))
