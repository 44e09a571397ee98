"""From `encode.<kind>_weights` to files on this machine, and the hash of what was loaded.

Only safetensors and ONNX are loaded: a pickle runs whatever code it holds.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256

STORE = "OMNIHUMAN_WEIGHTS"
"""The variable that may name a folder with the weights of this machine, one folder each."""
NETWORK_SECONDS = 10.0
"""Patience with the hub's first answer."""
_CONFIGS = ("config.json", "preprocessor_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PICKLES = (".bin", ".pt", ".ckpt", ".pth")
_STEMS = ("model", "diffusion_pytorch_model")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Published:
    """The weights that are meant where a user has not chosen others, as the error messages name them."""

    option: str  # the key that names the weights, e.g. encode.video_weights
    hub_id: str
    licence: str
    without: str  # the setting that needs no weights, e.g. encode.video_codec=cosine
    subfolder: str = ""  # where the network lies in the folder of a whole pipeline
    tokenizer: str | None = None  # the same of its tokenizer; None: it has none

    def remedy(self) -> str:
        """The end of every message about missing weights."""
        return (
            f"set {self.option} to a folder or hub id, by default {self.hub_id} ({self.licence}),"
            f" or set {self.without}, which needs none"
        )


@dataclass(frozen=True)
class LocalWeights:
    """The files of one encoder on this machine."""

    folder: Path  # holds config.json and the safetensors
    tokenizer: Path | None  # the folder of the tokenizer
    files: dict[str, Path]  # all that is loaded, by a name that does not depend on where it lies

    def config(self) -> dict[str, Any]:
        """What config.json says."""
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.folder / 'config.json'} is not JSON: {error}") from error
        return config if isinstance(config, dict) else {}

    def sha256(self) -> str:
        """Hexadecimal digest of the names and contents of all files; the same wherever they lie."""
        return files_sha256(self.files)


def files_sha256(files: dict[str, Path]) -> str:
    """Hexadecimal digest of files by their names, in the order of the names."""
    lines = [f"{name} {file_sha256(path)}\n" for name, path in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_weights(given: str, published: Published) -> LocalWeights:
    """Finds a network's files in a folder, under `$OMNIHUMAN_WEIGHTS`, in the hub's cache or on the hub, in this order.

    Args:
        given: a folder, or a hub id, which may end in @REVISION. The folder may be the network's own or that of a
            whole pipeline with the network in `published.subfolder`. One that is not here is looked for by its last
            name under `$OMNIHUMAN_WEIGHTS`, so that a model renders where its weights lie in another place.

    Raises:
        UserError: nothing is given, a file is missing, the hub does not answer, or there are only pickles. The message
            names the file or hub id, the default with its licence, and the option to change.
    """
    if not given:
        raise UserError(f"{published.option} is empty: {published.remedy()}")
    repository, _, revision = given.partition("@")
    store = os.environ.get(STORE)
    for folder in (Path(given).expanduser(), *([Path(store, Path(repository).name)] if store else [])):
        if folder.is_dir():
            return _in_folder(folder, given, published)
    if not _HUB_ID.fullmatch(repository):
        raise UserError(
            f"{published.option}: no folder {given}, nor one of its name in the folder that ${STORE} may name:"
            f" {published.remedy()}"
        )
    return _from_hub(repository, revision or None, published)


def _in_folder(folder: Path, given: str, published: Published) -> LocalWeights:
    parts = {"", published.subfolder, published.tokenizer or ""}
    names = {str(path.relative_to(folder)) for part in parts for path in (folder / part).glob("*") if path.is_file()}
    chosen = _choose(names, given, published)
    files = {f"{role}/{Path(name).name}": folder / name for role, names in chosen.items() for name in names}
    folders = {role: (folder / names[0]).parent for role, names in chosen.items()}
    return LocalWeights(folders["network"], folders.get("tokenizer"), files)


def _choose(names: set[str], given: str, published: Published) -> dict[str, list[str]]:
    """The files that are used, of the network and of the tokenizer; each list begins with one that must be there."""
    prefix = f"{published.subfolder}/"
    prefix = prefix if f"{prefix}config.json" in names else ""
    if f"{prefix}config.json" not in names:
        raise UserError(f"{published.option}={given}: no config.json in it: {published.remedy()}")
    own = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    network = [f"{prefix}{name}" for name in (*(c for c in _CONFIGS if c in own), *_tensors(own, given, published))]
    if published.tokenizer is None:
        return {"network": network}
    place = next((p for p in (f"{published.tokenizer}/", prefix, "") if f"{p}tokenizer.json" in names), None)
    if place is None:
        raise UserError(f"{published.option}={given}: no tokenizer.json in it: {published.remedy()}")
    return {"network": network, "tokenizer": [f"{place}{name}" for name in _TOKENIZER if f"{place}{name}" in names]}


def _tensors(names: set[str], given: str, published: Published) -> list[str]:
    """One safetensors file, or an index and its shards; variants such as model.fp16.safetensors are left alone."""
    for stem in _STEMS:
        if f"{stem}.safetensors" in names:
            return [f"{stem}.safetensors"]
        index = f"{stem}.safetensors.index.json"
        if index in names:
            return [index, *sorted(name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", name))]
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise UserError(
            f"{published.option}={given}: only pickles ({', '.join(pickles)}), which run code when they are loaded:"
            f" name a folder or revision with safetensors, or convert them once with save_pretrained; or"
            f" {published.remedy()}"
        )
    raise UserError(f"{published.option}={given}: no model.safetensors in it: {published.remedy()}")


def _from_hub(repository: str, revision: str | None, published: Published) -> LocalWeights:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    named = f"{repository}@{revision}" if revision else repository
    try:  # what has been downloaded before needs no network, and does not change under a running project
        cached = snapshot_download(repository, revision=revision, local_files_only=True)
        return _in_folder(Path(cached), named, published)
    except (OSError, HFValidationError, UserError):
        pass
    try:
        told = HfApi().model_info(repository, revision=revision, timeout=NETWORK_SECONDS)
        names = {file.rfilename for file in told.siblings or []}
        wanted = [name for names in _choose(names, named, published).values() for name in names]
        folder = snapshot_download(repository, revision=told.sha, allow_patterns=wanted, etag_timeout=NETWORK_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f"{published.option}: the hub knows no {named}: {published.remedy()}") from error
    except Exception as error:
        # The client's own class for a network that is away has changed with its HTTP library: OSError in some releases,
        # httpx's in others. A mistake of ours must not be told as one, so anything else goes on.
        if not isinstance(error, (OSError, HfHubHTTPError)) and not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(
            f"{published.option}: {named} is not on this machine and the hub cannot be reached"
            f" ({_first_line(error)}): download it elsewhere and name the folder, or {published.remedy()}"
        ) from error
    return _in_folder(Path(folder), named, published)


def check_pinned(option: str, path: Path, files: dict[str, Path], sha256: str) -> None:
    """Refuses files that are not those which the setting beside `option` pins.

    Args:
        option: the key that names them, e.g. score.face_weights, whose hash is pinned by score.face_sha256.
        path: what it says.
        files: as `files_sha256` takes them; one file alone counts by its own content.

    Raises:
        UserError: another hash is pinned, or none.
    """
    found = file_sha256(next(iter(files.values()))) if len(files) == 1 else files_sha256(files)
    if found != sha256:
        pin = f"{option.removesuffix('_weights')}_sha256"
        raise UserError(
            f"{option}={path} has the hash {found}, {pin} says {sha256 or 'nothing'}: set it to the hash of the files"
            " that you trust"
        )


def pinned_weights(given: str, published: Published, sha256: str) -> LocalWeights:
    """What `find_weights` finds, where it is what is pinned; errors of that and of `check_pinned`."""
    files = find_weights(given, published)
    check_pinned(published.option, files.folder, files.files, sha256)
    return files


def check_file(option: str, path: Path, sha256: str) -> None:
    """`check_pinned` of one file.

    Raises:
        UserError: it is missing, or not the one that was pinned.
    """
    if not path.is_file():
        raise UserError(f"{option}={path}: no such file; name the published one, or leave it empty")
    check_pinned(option, path, {path.name: path}, sha256)


def pinned_state_dict(option: str, path: Path, sha256: str, network: Any, layout: str) -> None:
    """Loads a pickled state dict into a network, as tensors only, from the file that was pinned.

    Args:
        layout: where the layout is from, for the error message.

    Raises:
        UserError: the file is missing, is not the one that was pinned, or is of another layout.
    """
    import torch

    check_file(option, path, sha256)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch tells a wrong layout and a pickle that holds code by different classes
        raise UserError(f"{option}={path} is not a state dict of {layout}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def quiet_loading() -> None:
    """Keeps the bars and tables of transformers off the terminal; what matters of them `check_loaded` tells."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_frozen(kind: Any, files: LocalWeights, expected: str) -> Any:
    """A network of one of transformers' classes, in float32, in which nothing trains.

    Args:
        expected: what the files should be, for the error message.

    Raises:
        UserError: they cannot be loaded, or leave a part of the network at random.
    """
    import torch

    quiet_loading()
    try:
        network, told = kind.from_pretrained(
            files.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise not_loaded(error, files, expected) from error
    check_loaded(told, files)
    return network.requires_grad_(False).eval()


def not_loaded(error: Exception, files: LocalWeights, expected: str) -> UserError:
    """What to raise when a library could not load files.

    Raises:
        MemoryError: that was the reason.
    """
    text = str(error) or type(error).__name__
    if "allocate memory" in text:  # of torch's allocator and of a failed mapping
        raise MemoryError(text) from error
    return UserError(f"{files.folder} cannot be loaded as {expected}: {text.splitlines()[0]}")


def check_loaded(told: dict[str, Any], files: LocalWeights, may_be_missing: Iterable[str] = ()) -> None:
    """Refuses weights that left a part of the network at random.

    Args:
        told: `output_loading_info` of diffusers or transformers. Surplus tensors, such as those of another head, are
            no mistake.
        may_be_missing: ends of names that published files leave out on purpose.

    Raises:
        UserError: tensors are missing or have other shapes; the message lists the first ones.
    """
    endings = tuple(may_be_missing)
    missing = sorted(name for name in told["missing_keys"] if not (endings and name.endswith(endings)))
    wrong = sorted(str(entry[0]) for entry in told.get("mismatched_keys") or [])
    for names, what in ((missing, "lacks"), (wrong, "has other shapes for")):
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{files.folder} {what} {', '.join(names[:3])}{rest}: its config.json and safetensors do not belong"
                " together, take both from one published folder"
            )


def check_sha256(files: LocalWeights, expected: str, published: Published) -> None:
    """Raises `UserError` where the weights are not those that the data or the model was made with."""
    if expected and (found := files.sha256()) != expected:
        raise UserError(
            f"{published.option}: {files.folder} has the hash {found[:12]}, but {expected[:12]} was encoded with: name"
            " the folder or revision of then, or encode again"
        )
