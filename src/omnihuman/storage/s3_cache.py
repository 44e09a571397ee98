"""Whole files from S3, kept on this machine: by content, fetched once, and on from where a killed fetch stopped.

Under `$OMNIHUMAN_HOME/s3`: `objects/SHA256` holds contents, `files/BUCKET/KEY` links to them under the names that
sidecars go by, `index/HASH.json` says which content an address had (ETag and size), `partial/` what is on its way.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256, publish
from omnihuman.storage.work import omnihuman_home

_CHUNK_BYTES = 1 << 20
_THREADS = 8
_REFUSED = ("", ".", "..")


@dataclass(frozen=True)
class _Listed:
    key: str
    etag: str
    size: int


class S3Cache:
    """Files below buckets; address, region and keys come from the environment (`AWS_*`).

    Args:
        sidecar_suffixes: what may lie beside NAME.mp4 on S3 and belongs to it, e.g. `.json`.
        without: SHA-256 of contents that must not be fetched again.
    """

    def __init__(self, sidecar_suffixes: tuple[str, ...], without: Set[str] = frozenset()) -> None:
        self._root = omnihuman_home() / "s3"
        self._sidecars, self._without = sidecar_suffixes, without
        self._connected: Any = None

    def fetch_folder(self, address: str, suffixes: tuple[str, ...]) -> Path:
        """The folder in which the files with one of these suffixes below `s3://bucket/prefix` lie, as they are now.

        Raises:
            UserError: nothing is there, S3 does not answer, or a key cannot be a path.
        """
        bucket, prefix = _split(address)
        prefix = f"{prefix.rstrip('/')}/".lstrip("/")
        wanted = [one for one in self._list(bucket, prefix) if one.key.lower().endswith(suffixes)]
        if not wanted:
            raise UserError(f"{address} holds no file named {', '.join(suffixes)}; check the address")
        folder = self._place(bucket, prefix) if prefix else self._root / "files" / bucket
        with ThreadPoolExecutor(_THREADS) as threads:
            kept = set(threads.map(lambda one: self._fetch(bucket, one), wanted))
        for path in [path for path in folder.rglob("*") if path.is_file() and path not in kept]:
            path.unlink()  # it is no longer on S3, or must not be here
        return folder

    def fetch_video(self, address: str) -> Path | None:
        """One file with its sidecars; None where its content must not be fetched.

        Raises:
            UserError: as `fetch_folder`.
        """
        bucket, key = _split(address)
        stem = key.rpartition(".")[0] or key
        wanted = {key, *(stem + suffix for suffix in self._sidecars)}
        found = {one.key: one for one in self._list(bucket, stem) if one.key in wanted}
        if key not in found:
            raise UserError(f"{address} does not exist; correct the row, or copy the video there")
        paths = {one.key: self._fetch(bucket, one) for one in found.values()}
        return paths[key]

    def forget(self, path: Path) -> None:
        """Removes a file of the cache with its content and its sidecars; other files are left alone."""
        if not path.is_relative_to(self._root):
            return
        for one in [path, *(path.with_suffix(suffix) for suffix in self._sidecars)]:
            if one.is_file():
                (self._root / "objects" / file_sha256(one)).unlink(missing_ok=True)
                one.unlink()

    def _fetch(self, bucket: str, one: _Listed) -> Path | None:
        place = self._place(bucket, one.key)
        address = f"s3://{bucket}/{one.key}"
        name = hashlib.sha256(address.encode()).hexdigest()
        index = self._root / "index" / f"{name}.json"
        with self._locked(name):
            sha256 = _known(index, one)
            if sha256 in self._without:
                return None
            content = self._root / "objects" / sha256 if sha256 else None
            if content is None or not content.is_file() or content.stat().st_size != one.size:
                sha256 = self._download(bucket, one, name)
                _write_json(index, {"etag": one.etag, "size": one.size, "sha256": sha256})
                if sha256 in self._without:
                    (self._root / "objects" / sha256).unlink()
                    return None
                content = self._root / "objects" / sha256
            if not place.is_file() or not place.samefile(content):
                with publish(place) as temporary:
                    temporary.unlink(missing_ok=True)
                    os.link(content, temporary)
        return place

    def _download(self, bucket: str, one: _Listed, name: str) -> str:
        """Adds to what is there of this very content, and returns the SHA-256 of the whole."""
        version = hashlib.sha256(f"{one.etag} {one.size}".encode()).hexdigest()[:16]
        partial = self._root / "partial" / f"{name}-{version}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        begin = partial.stat().st_size if partial.is_file() else 0
        if begin < one.size or one.size == 0:
            with self._errors(f"s3://{bucket}/{one.key}"), partial.open("ab") as file:
                extent = {"Range": f"bytes={begin}-"} if begin else {}
                answer = self._client().get_object(Bucket=bucket, Key=one.key, IfMatch=one.etag, **extent)
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    file.write(chunk)
        if partial.stat().st_size != one.size:
            partial.unlink()
            raise UserError(f"s3://{bucket}/{one.key} changed while it was fetched: run this again")
        sha256 = file_sha256(partial)
        objects = self._root / "objects"
        objects.mkdir(exist_ok=True)
        partial.replace(objects / sha256)
        return sha256

    def _list(self, bucket: str, prefix: str) -> list[_Listed]:
        with self._errors(f"s3://{bucket}/{prefix}"):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = [one for page in pages for one in page.get("Contents", [])]
        return [_Listed(one["Key"], one["ETag"], one["Size"]) for one in found if not one["Key"].endswith("/")]

    def _place(self, bucket: str, key: str) -> Path:
        parts = key.rstrip("/").split("/")
        if any(part in _REFUSED or "\0" in part for part in parts):
            raise UserError(f"s3://{bucket}/{key}: cannot be the name of a file here; rename it on S3")
        return self._root.joinpath("files", bucket, *parts)

    def _client(self) -> Any:
        if self._connected is None:
            import boto3
            from botocore.config import Config

            retries: Any = {"max_attempts": 5, "mode": "standard"}
            self._connected = boto3.client("s3", config=Config(retries=retries, connect_timeout=10, read_timeout=60))
        return self._connected

    @contextmanager
    def _errors(self, address: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise UserError(
                f"{address} cannot be read: {error}; check the address, AWS_* and the network, and run this again,"
                " which goes on where it was"
            ) from error

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        place = self._root / "locks" / f"{name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place):
            yield


def _split(address: str) -> tuple[str, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or bucket in _REFUSED:
        raise UserError(f"{address} names no bucket: write s3://bucket/prefix")
    return bucket, key


def _known(index: Path, one: _Listed) -> str:
    """SHA-256 of the content where it is the one fetched before, else empty."""
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
        same = values["etag"] == one.etag and values["size"] == one.size
        return values["sha256"] if same else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with publish(path) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
