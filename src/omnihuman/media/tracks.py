"""Telling encoded pictures and sound apart from the container that holds them."""

import hashlib
from pathlib import Path

import av


def track_hashes(path: Path) -> dict[str, str]:
    """sha256 of the encoded data of the first video and the first sound track, by `video` and `audio`.

    They stay equal when a file is packed anew, tagged or signed, and differ when it is encoded again. Nothing is
    decoded, and memory does not grow with the length.

    Raises:
        av.error.FFmpegError: the file is no media file.
    """
    digests: dict[str, hashlib._Hash] = {}
    with av.open(str(Path(path).absolute())) as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        digests = {stream.type: hashlib.sha256() for stream in streams}
        for packet in container.demux(streams) if streams else ():
            digests[packet.stream.type].update(bytes(packet))
    return {kind: digest.hexdigest() for kind, digest in digests.items()}
