"""Files in a folder or below an S3 prefix: read in parts, put there whole.

Address, region and keys of S3 come from the environment (`AWS_*`, `AWS_ENDPOINT_URL` for another server than Amazon's).
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from omnihuman.errors import UserError
from omnihuman.storage.files import publish

Range = tuple[int, int]
"""First byte, and the byte after the last."""
_THREADS = 16
_ATTEMPTS = 5
_FIRST_PAUSE = 0.1
"""Seconds before an answer that broke off is asked for again; then twice as many each time."""
_CONNECTING = Lock()
"""boto3 makes clients out of one session, which is not for several threads at once."""


class Files(Protocol):
    """Files by name; safe to hand to another process, which then opens connections of its own."""

    def head(self, name: str, count: int) -> tuple[bytes, int]:
        """The first bytes of a file, fewer where it is shorter, and its whole size.

        Raises:
            UserError: the file does not exist or cannot be reached.
        """
        ...

    def read(self, name: str, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range.

        Raises:
            UserError: as `head`, or the file ends before a range does.
        """
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none.

        Raises:
            UserError: the place cannot be reached.
        """
        ...

    def put(self, name: str, path: Path) -> None:
        """Copies a file there, in place of what has the name; nobody ever sees half of it.

        Raises:
            UserError: the place cannot be written to.
        """
        ...

    def names(self) -> list[str]:
        """Of the files that lie there directly, sorted; none where the place does not exist.

        Raises:
            UserError: the place cannot be reached.
        """
        ...

    def remove(self, name: str) -> None:
        """Removes a file, also one that is not there; errors as for `put`."""
        ...


def files_at(place: str | Path) -> Files:
    """The files of a folder, or below `s3://bucket/prefix`."""
    return S3Files(str(place)) if str(place).startswith("s3://") else LocalFiles(Path(place))


class LocalFiles:
    """See `Files`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self, name: str, count: int) -> tuple[bytes, int]:
        """See `Files.head`."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                return file.read(count), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; copy it there again") from error

    def read(self, name: str, ranges: Sequence[Range]) -> list[bytes]:
        """See `Files.read`."""
        path = self._folder / name
        try:
            with path.open("rb", buffering=0) as file:
                parts = [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; copy it there again") from error
        return _whole(str(path), ranges, parts)

    def size(self, name: str) -> int | None:
        """See `Files.size`."""
        path = self._folder / name
        return path.stat().st_size if path.is_file() else None

    def put(self, name: str, path: Path) -> None:
        """See `Files.put`."""
        try:
            with publish(self._folder / name) as temporary:
                shutil.copyfile(path, temporary)
        except OSError as error:
            raise UserError(f"{self._folder / name} cannot be written: {error.strerror}; see to that place") from error

    def names(self) -> list[str]:
        """See `Files.names`."""
        return sorted(path.name for path in self._folder.glob("*") if path.is_file())

    def remove(self, name: str) -> None:
        """See `Files.remove`."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self._folder / name} cannot be removed: {error.strerror}; see to that place") from error


class S3Files:
    """See `Files`; one GET a range, those of one call at the same time."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket:
            raise UserError(f"{address} names no bucket: write s3://bucket/prefix")
        self._bucket, self._prefix = bucket, f"{prefix.rstrip('/')}/".lstrip("/")
        self._process, self._client, self._threads = 0, None, None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_process": 0, "_client": None, "_threads": None}

    def head(self, name: str, count: int) -> tuple[bytes, int]:
        """See `Files.head`."""
        self._connect()
        return self._get(name, (0, count))

    def read(self, name: str, ranges: Sequence[Range]) -> list[bytes]:
        """See `Files.read`."""
        threads = self._connect()
        parts = list(threads.map(lambda part: self._get(name, part)[0] if part[0] < part[1] else b"", ranges))
        return _whole(self._address(name), ranges, parts)

    def size(self, name: str) -> int | None:
        """See `Files.size`."""
        from botocore.exceptions import ClientError

        try:
            with self._answers(name, "read", but=("404", "NoSuchKey")):
                return self._connected().head_object(Bucket=self._bucket, Key=self._prefix + name)["ContentLength"]
        except ClientError:
            return None

    def put(self, name: str, path: Path) -> None:
        """See `Files.put`; a large file goes in parts, at the same time."""
        from boto3.exceptions import S3UploadFailedError

        try:
            with self._answers(name, "written"):
                self._connected().upload_file(str(path), self._bucket, self._prefix + name)
        except S3UploadFailedError as error:
            raise UserError(f"{self._address(name)} cannot be written: {error}; check the address and AWS_*") from error

    def names(self) -> list[str]:
        """See `Files.names`."""
        with self._answers("", "listed"):
            pages = self._connected().get_paginator("list_objects_v2")
            listed = pages.paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/")
            keys = [one["Key"] for page in listed for one in page.get("Contents", [])]
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def remove(self, name: str) -> None:
        """See `Files.remove`; every version goes, where the bucket keeps versions."""
        key = self._prefix + name
        with self._answers(name, "removed"):
            pages = self._connected().get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
            listed = [one for page in pages for one in page.get("Versions", []) + page.get("DeleteMarkers", [])]
            for one in listed:
                if one["Key"] == key:
                    self._connected().delete_object(Bucket=self._bucket, Key=key, VersionId=one["VersionId"])

    def _connected(self) -> Any:
        self._connect()
        return self._client

    @contextmanager
    def _answers(self, name: str, done: str, but: Sequence[str] = ()) -> Iterator[None]:
        """Turns what goes wrong with S3 into words; errors with the codes `but` pass."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except BotoCoreError as error:
            raise UserError(f"{self._address(name)} cannot be {done}: {error}; check AWS_* and the network") from error
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in but:
                raise
            remedy = "copy it there again" if code in ("NoSuchKey", "404") else "check the address and AWS_* settings"
            raise UserError(f"{self._address(name)} cannot be {done}: {code}; {remedy}") from error

    def _connect(self) -> ThreadPoolExecutor:
        """Neither connections nor threads survive a fork."""
        with _CONNECTING:
            if self._client is None or self._threads is None or self._process != os.getpid():
                import boto3
                from botocore.config import Config

                retries: Any = {"max_attempts": _ATTEMPTS, "mode": "standard"}
                config = Config(retries=retries, max_pool_connections=2 * _THREADS, connect_timeout=10, read_timeout=60)
                self._client = boto3.client("s3", config=config)
                self._threads = ThreadPoolExecutor(_THREADS)
                self._process = os.getpid()
            return self._threads

    def _get(self, name: str, part: Range) -> tuple[bytes, int]:
        """botocore asks again where a request fails, but not where a connection breaks within the answer's body."""
        from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS

        attempt = 1
        while True:
            body, size = self._ask(name, part)
            try:
                return body.read() if body else b"", size
            except S3_RETRYABLE_DOWNLOAD_ERRORS as error:
                if attempt == _ATTEMPTS:
                    where = self._address(name)
                    raise UserError(f"{where} broke off {_ATTEMPTS} times ({error}): check the network") from error
            time.sleep(2 ** (attempt - 1) * _FIRST_PAUSE)
            attempt += 1

    def _ask(self, name: str, part: Range) -> tuple[Any, int]:
        """The body to read, none where the file ends before the range begins, and the file's whole size."""
        from botocore.exceptions import ClientError

        assert self._client is not None
        key = self._prefix + name
        try:
            with self._answers(name, "read", but=("InvalidRange",)):
                answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={part[0]}-{part[1] - 1}")
            return answer["Body"], int(answer["ContentRange"].rpartition("/")[2])
        except ClientError as error:
            return None, int(error.response["Error"].get("ActualObjectSize", 0))

    def _address(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"


def _whole(where: str, ranges: Sequence[Range], parts: list[bytes]) -> list[bytes]:
    for (start, stop), part in zip(ranges, parts, strict=True):
        if len(part) != stop - start:
            raise UserError(f"{where} ends at byte {start + len(part)}, before {stop}: copy it there again")
    return parts
