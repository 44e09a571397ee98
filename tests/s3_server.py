"""An S3 server of moto's for tests, with one bucket."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

BUCKET = "sources"


@contextmanager
def serve(log: Path) -> Iterator[str]:
    """The address of a server that ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            client = boto3.client("s3", endpoint_url=address, aws_access_key_id="a", aws_secret_access_key="b")
            for attempt in range(240):
                try:
                    client.create_bucket(Bucket=BUCKET)
                    break
                except Exception:
                    assert process.poll() is None and attempt < 239, log.read_text()
                    time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait()


def settings(address: str) -> dict[str, str]:
    """The environment in which S3 is that server."""
    return {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip


def empty_bucket() -> None:
    """Removes what a test before has put there."""
    client = boto3.client("s3")
    for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=one["Key"])
