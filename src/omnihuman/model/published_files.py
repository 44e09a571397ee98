"""Files of a published base: a folder in diffusers' layout or a hub id, opened without reading a tensor.

Names of files as diffusers 0.42.1 writes and reads them: `diffusion_pytorch_model.safetensors`, or shards behind
`diffusion_pytorch_model.safetensors.index.json`, each with the variant's name before its ending.
"""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from omnihuman.errors import UserError
from omnihuman.model.published import CLASS_NAME

MOTIF = "Motif-Technologies/Motif-Video-2B"
WEIGHTS = "diffusion_pytorch_model"
CONFIG = "config.json"
_PICKLES = (".bin", ".pt", ".ckpt", ".pth", ".pkl")
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_OTHER_CLASSES = {
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
    "HunyuanVideo15Transformer3DModel": "HunyuanVideo-1.5",
    "MochiTransformer3DModel": "Mochi",
    "WanTransformer3DModel": "Wan",
    "CogVideoXTransformer3DModel": "CogVideoX",
    "LTXVideoTransformer3DModel": "LTX-Video",
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor before it is read."""

    path: Path
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it, e.g. BF16


@dataclass(frozen=True)
class PublishedFiles:
    """A published base whose files are whole."""

    source: str  # hub id@commit, or the folder's name
    folder: Path
    config: dict[str, Any]
    variant: str
    headers: dict[str, TensorHeader]

    @property
    def paths(self) -> list[Path]:
        """The weight files, each once."""
        return sorted({header.path for header in self.headers.values()})

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by its published name, one file after the other; a line of progress for each."""
        for number, path in enumerate(self.paths, start=1):
            size = path.stat().st_size / 1e9
            log.info("reading file %d of %d: %s, %.2f GB", number, len(self.paths), path.name, size)
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # not a mapping
                    yield name, file.get_tensor(name)


def open_published(place: str, variant: str = "") -> PublishedFiles:
    """Finds and checks the files of a base.

    Args:
        place: folder of the transformer or of a whole pipeline, or a hub id, `owner/name` or `owner/name@revision`.
        variant: which of several sets of weights, e.g. `bf16`; by default the plain one, or the only one there is.

    Raises:
        UserError: nothing is there, it is of another class, pickled, damaged, incomplete or quantised.
    """
    path = Path(place).expanduser()
    if path.suffix in _PICKLES:
        raise UserError(_no_pickles(place))
    if path.is_file():
        raise UserError(f"{place} is a file: name the folder that holds it together with its {CONFIG}")
    if path.is_dir():
        folder, source = path, path.resolve().name
        if source == "transformer":
            source = f"{path.resolve().parent.name}/{source}"
    elif hub := _HUB_ID.fullmatch(place):
        folder, source = _fetch(hub["id"], hub["revision"], variant)
    else:
        raise UserError(f"{place}: no such folder; name a folder in diffusers' layout or a hub id such as {MOTIF}")
    if (folder / "model.json").is_file():
        raise UserError(f"{place} is a checkpoint of this program already: `omnihuman checkpoint export` publishes it")
    if (folder / "model_index.json").is_file() or (
        not (folder / CONFIG).exists() and (folder / "transformer").is_dir()
    ):
        folder = folder / "transformer"
    config = _read_config(folder)
    index_or_file, variant = _weights(folder, variant)
    return PublishedFiles(source, folder, config, variant, _headers(index_or_file))


def _fetch(hub_id: str, revision: str | None, variant: str) -> tuple[Path, str]:
    """The transformer's files of a hub repository, and where they came from."""
    from huggingface_hub import snapshot_download

    wanted = f"*{variant}*.safetensors" if variant else "*.safetensors"
    patterns = ["*.json", "transformer/*.json", f"{WEIGHTS}{wanted}", f"transformer/{wanted}"]
    others = [] if variant else ["*.bf16*", "*.fp16*"]
    try:
        log.info("fetching %s from the hub, or from its cache", hub_id)
        found = snapshot_download(hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=others)
        if others and not any(Path(found).rglob(f"{WEIGHTS}*")):  # a variant is all there is
            found = snapshot_download(hub_id, revision=revision, allow_patterns=patterns)
    except Exception as error:  # of the hub's client, its HTTP library and the operating system, without a common base
        licence = "Apache-2.0" if hub_id == MOTIF else f"as its page says; that of {MOTIF} is Apache-2.0"
        at = f" --revision {revision}" if revision else ""
        raise UserError(
            f"{hub_id} is no folder here, and the hub could not give it ({type(error).__name__}). Licence: {licence}."
            f" Where there is a network, run `hf download {hub_id}{at} --include 'transformer/*' --local-dir FOLDER`"
            " and name FOLDER/transformer instead"
        ) from error
    return Path(found), f"{hub_id}@{Path(found).name}"


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path} is missing: name the transformer's folder, or that of a pipeline with transformer/")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = config.get("_class_name") or "file without a class name"
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a JSON object: fetch it again ({error})") from error
    if name != CLASS_NAME:
        family = f" ({_OTHER_CLASSES[name]})" if name in _OTHER_CLASSES else ""
        raise UserError(
            f"{path} is of a {name}{family}, not an MMDiT that can be imported: take a {CLASS_NAME}, e.g. {MOTIF}"
        )
    return config


def _weights(folder: Path, variant: str) -> tuple[Path, str]:
    """The single file or the index of one variant, and which it is."""
    found = _variants(folder)
    if not variant and "" not in found and len(found) == 1:
        (variant,) = found
        log.info("%s holds the variant %s only: taking it", folder, variant)
    if variant in found:
        return found[variant], variant
    if found:
        names = ", ".join(f"--variant {name}" if name else "no --variant" for name in sorted(found))
        raise UserError(f"{folder} has no {'variant ' + variant if variant else 'plain weights'}: take one of {names}")
    if any(path.suffix in _PICKLES for path in folder.iterdir()):
        raise UserError(_no_pickles(str(folder)))
    raise UserError(f"{folder} holds no {WEIGHTS}.safetensors and no index of shards: fetch the weights")


def _variants(folder: Path) -> dict[str, Path]:
    """What is there to read, by variant; as in diffusers an index goes before a single file."""
    single = re.compile(rf"{WEIGHTS}(?:\.([\w-]+))?\.safetensors")
    index = re.compile(rf"{WEIGHTS}\.safetensors\.index(?:\.(\w+))?\.json")
    found = {}
    for pattern in (single, index):
        for path in sorted(folder.iterdir()):
            match = pattern.fullmatch(path.name)
            if match and not re.search(r"-of-\d+$", match[1] or ""):
                found[match[1] or ""] = path
    return found


def _headers(index_or_file: Path) -> dict[str, TensorHeader]:
    if index_or_file.suffix == ".safetensors":
        return dict(file_headers(index_or_file))
    headers: dict[str, TensorHeader] = {}
    for path in _shards(index_or_file):
        for name, header in file_headers(path):
            if name in headers:
                raise UserError(f"{name} lies in {headers[name].path.name} and in {path.name}: fetch the weights again")
            headers[name] = header
    return headers


def _shards(index: Path) -> list[Path]:
    try:
        shards = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not an index of shards: fetch it again ({type(error).__name__})") from error
    if strange := [name for name in shards if Path(name).name != name or not name.endswith(".safetensors")]:
        raise UserError(f"{index} names {strange[0]!r}, which is not a .safetensors file beside it: fetch it again")
    if missing := [name for name in shards if not (index.parent / name).is_file()]:
        raise UserError(f"{index} names {len(missing)} files that are missing, e.g. {missing[0]}: fetch them")
    return [index.parent / name for name in shards]


def file_headers(path: Path) -> Iterator[tuple[str, TensorHeader]]:
    """Names, shapes and types of the tensors of a file.

    Raises:
        UserError: the file is truncated or damaged, or its numbers are quantised.
    """
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                header = TensorHeader(path, tuple(part.get_shape()), part.get_dtype())
                if header.dtype not in ("F32", "F16", "BF16"):
                    raise UserError(
                        f"{path}: {name} is {header.dtype}: quantised weights cannot be imported, take F32, F16 or BF16"
                    )
                yield name, header
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or damaged: fetch it again ({error})") from error


def _no_pickles(place: str) -> str:
    return (
        f"{place}: a pickle can run any program when it is read, so that it is never loaded. Take the .safetensors"
        f" files of the same model, or convert it where you trust it: {CLASS_NAME}.from_pretrained(FOLDER,"
        " use_safetensors=False).save_pretrained(NEW_FOLDER)"
    )
