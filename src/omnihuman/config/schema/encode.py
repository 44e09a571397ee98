"""What precomputation writes for training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encode:
    """Resolution, window length and the frozen encoders."""

    fps: float = 25.0
    """Model time; every clip is resampled to it by timestamps."""
    num_frames: int = 17
    """Frames in one training window; 4k + 1."""
    windows_per_clip: int = 3
    resolutions: tuple[int, ...] = (4096,)
    """Width times height of the encoded video, from low to high; the clip's aspect is kept. A clip is encoded at each
    that it has pixels for, at the lowest in any case. Phases of a stage choose among them, evaluation takes the
    highest."""
    size_multiple: int = 8
    """Width and height are multiples of this, so that latents and patches fit."""
    max_aspect: float = 2.0
    video_codec: str = "cosine"
    """`cosine` (no weights) or `wan`, the VAE of Wan 2.1."""
    video_weights: str = ""
    """Folder or hub id, which may end in @REVISION; empty for an encoder without weights. Likewise the other two."""
    video_tiling: bool = False
    """Whether `wan` takes large pictures in tiles, which is approximate and needs less memory."""
    video_tile_pixels: int = 256
    video_tile_stride_pixels: int = 192
    """From one tile to the next; what is left of a tile overlaps and is blended."""
    speech_encoder: str = "log_mel"
    """`log_mel` (no weights), `wav2vec2` or `whisper`."""
    speech_weights: str = ""
    store_speech: bool = True
    """Whether shards hold the sound's features. Else the loader makes them of the stored sound, which has a thirtieth
    of the bytes of those of `wav2vec2`, but each loader then runs it."""
    text_encoder: str = "hashed_words"
    """`hashed_words` (no weights), `t5` (also UMT5) or `t5gemma2`."""
    text_weights: str = ""
    max_text_tokens: int = 16
    keypoints: str = "body"
    """`body` (COCO's 17) or `whole_body` (133 with feet, face and hands); what a declared pose lacks is not seen."""
    pose_weights: str = ""
    """Folder with DWPose's two ONNX files, which find the pose of clips that declare none; empty: those have none."""
    pose_sha256: str = ""
    """Of both files; they load only where this is right."""
    shard_clips: int = 64
    """Clips per shard file."""
    shards_at: str = ""
    """Where the shards go: a folder that all machines see, or `s3://bucket/prefix`; empty: into `data/encoded` itself,
    under DVC. Elsewhere their names hold the hash of their content, and DVC versions the table that names them."""
    imported: str = ""
    """Folder of clips that another machine or program has encoded, in the layout of `data/encoded`; these are taken."""
    deadline_seconds: float = 120.0
    memory_megabytes: int = 2048
    """Of one worker, with the weights that it loads for its first clip."""
