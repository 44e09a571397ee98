"""Evaluation on held-out identities and sounds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sampling:
    """How the flow is solved when a video is made."""

    num_steps: int = 16
    guidance_text: float = 1.0
    guidance_audio: float = 2.0
    guidance_end: float = 1.0
    """Of both scales, where annealing ends; it never lies above where they begin (OmniHuman-1, sec. 3.4)."""
    shift: float = 1.0
    """Moves the steps' noise levels towards noise: SD3's static shift."""
    solver: str = "euler"
    """`euler`; `heun`, of second order, evaluates the model twice a step; `adams_bashforth`, of second order, once."""
    shift_by_tokens: bool = False
    """Instead of `shift`, one that grows with the picture: from 1.6 at 256 tokens to 3.2 at 4096."""
    guidance_annealing: str = "linear"
    """How the scales fall to `guidance_end`: `constant` (not at all), `linear`, `cosine`."""
    guidance_annealing_steps: int = 0
    """In so many first steps the scales fall, then they stay; 0: in all."""
    guidance_text_steps: int = 0
    """In so many first steps text is guided, then sound alone; 0: in all."""
    guidance_batched: bool = True
    """The branches of guidance as one batch; false: one after another, in less memory."""
    precision: str = "float32"
    """Of the model's weights and products while it denoises: `float32` or `bfloat16`."""
    vae_tile_pixels: int = 0
    """Side of the squares in which a published VAE works, to save memory; 0: as the data were encoded."""


@dataclass(frozen=True)
class Extractors:
    """Weights behind the published metrics; a metric whose weights are not named is measured by a stand-in.

    Weights load only where their hash is the one that stands beside them.
    """

    inception_weights: str = ""
    """Inception of FID, torch-fidelity's weights-inception-2015-12-05-6726825d.pth."""
    inception_sha256: str = ""
    i3d_weights: str = ""
    """I3D of FVD and KVD, i3d_torchscript.pt."""
    i3d_sha256: str = ""
    i3d_resizing: str = "crop"
    """To 224 pixels: `crop` (short side, then the centre, as StyleGAN-V) or `squash` (both sides, as cd-fvd)."""
    qalign_weights: str = ""
    """Q-Align for iqa and ase, by pyiqa: the hub id q-future/one-align, downloaded before. Non-commercial."""
    qalign_sha256: str = ""
    syncnet_weights: str = ""
    """SyncNet's published state dict (joonson/syncnet_python), for sync_c and sync_d."""
    syncnet_sha256: str = ""
    pose_weights: str = ""
    """Folder with DWPose's two ONNX files, for hkc, hkv and akd."""
    pose_sha256: str = ""
    arcface_weights: str = ""
    """ArcFace's ONNX file (w600k_r50.onnx of buffalo_l), for identity. It needs YuNet, too. Non-commercial."""
    arcface_sha256: str = ""
    face_weights: str = ""
    """YuNet's ONNX file."""
    face_sha256: str = ""
    dino_weights: str = ""
    """DINO ViT-B/16 for subject_consistency, folder or hub id, which may end in @REVISION."""
    dino_sha256: str = ""
    allow_non_commercial: bool = False
    """Whether extractors may run whose licence forbids commercial use."""


@dataclass(frozen=True)
class Evaluate:
    """How many held-out clips are generated and how intervals are drawn."""

    model: str = ""
    """Folder of the stage that is measured: set by composition, the last in line."""
    num_audio_clips: int = 48
    num_pose_clips: int = 32
    batch_size: int = 8
    num_resamples: int = 2000
    """Bootstrap resamples and shuffles of the sound."""
    confidence: float = 0.95
    metrics: tuple[str, ...] = ("mouth_and_loudness", "identity", "motion", "flicker", "noise", "hkc", "hkv", "akd")
    """Measured of the same videos besides, each as far as it applies; none for none."""
    long_videos: int = 0
    """Held-out people who speak the joined sounds of others, for metrics that look at how a video drifts."""
    long_seconds: float = 30.0
    extractors: Extractors = field(default_factory=Extractors)


@dataclass(frozen=True)
class Render:
    """Output of `omnihuman render`."""

    upscale: int = 4
    """Factor by which decoded frames are enlarged before the file is written (Lanczos, after the model)."""
    crf: int = 16
    """Quality on the codec's scale from 0 (best) to 51; 5 more of HEVC's look alike."""
    chaining: str = "decoded_frames"
    """How segments are joined: `decoded_frames` (the last five, encoded again, as in the paper) or `latent_stream` (the
    last two latents as they are, and one stream of decoding; for models trained with `training.midstream_share`)."""
    keep_colour: float = 0.0
    """How far, from 0 to 1, the mean and the contrast of each colour channel are led back to the reference's in the
    motion frames; with `decoded_frames` only."""
    codec: str = "h264"
    """h264 plays everywhere; hevc is smaller."""
    fps: float = 0.0
    """Of the file; 0 leaves the model's. Frames are shown again or left out by their times, none is invented."""
    width: int = 0
    """Of the file, in pixels; 0 follows `height` and the picture's aspect, or `upscale` where both are 0."""
    height: int = 0
    """With both given, the picture covers them and what juts out is cut off: it is never distorted."""
    label: str = ""
    """Text drawn into the lower left corner, for example "made by AI"; empty for none."""
    content_credentials: bool = True
    """Whether the file carries a signed C2PA manifest."""
