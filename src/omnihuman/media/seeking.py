"""Pictures from a moment on, also in files without an index."""

from collections.abc import Iterator
from itertools import chain

import av
from av.container import InputContainer
from av.video.stream import VideoStream

EARLIER_SECONDS = (0.0, 4.0, 20.0)
"""Before the moment, where a key frame is looked for; then the file is decoded from its beginning."""


def pictures_from(container: InputContainer, stream: VideoStream, seconds: float) -> Iterator[av.VideoFrame]:
    """Decodes from a key frame at or before a time stamp on.

    A transport stream has no index: a seek ends between key frames, and the first picture that can be decoded from
    there may come after the moment, or not at all. Then it is entered earlier.

    Args:
        seconds: as the file counts them.
    """
    for earlier in (*EARLIER_SECONDS, seconds):
        container.seek(int(max(0.0, seconds - earlier) / float(stream.time_base or 1)), stream=stream)
        pictures = container.decode(stream)
        first = next(pictures, None)
        entered_in_time = first is not None and (first.time is None or first.time <= seconds)
        if entered_in_time or earlier >= seconds:
            yield from chain([first] if first is not None else [], pictures)
            return
