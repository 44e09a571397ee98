"""What to render: the files, the text and the seed of one video."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omnihuman.errors import UserError

LARGEST_SIDE = 8192
"""In pixels, that may be asked of the model."""


@dataclass(frozen=True)
class InputOptions:
    """How the files of a request are taken; plain values, so that a job can set each."""

    model_width: int = 0
    """In pixels, of what the model makes; 0: by the picture's aspect. Likewise the other two."""
    model_height: int = 0
    model_short_side: int = 0
    pose_width: int = 0
    """In pixels, of the canvas of keypoints in a JSON that does not tell; 0: not known."""
    pose_height: int = 0
    pose_fps: float = 0.0
    """Of keypoints in a JSON, which does not tell; 0: 25."""
    retarget: bool = True
    """Whether a pose takes the proportions of the person in the picture, where their pose is known."""
    video_sound: bool = False
    """Whether the sound of `video` drives too."""
    pose_weights: str = ""
    """Folder with DWPose's two ONNX files, for poses of videos and of the picture; empty: none are found."""
    pose_sha256: str = ""
    """Of both files; empty: not checked."""

    def told(self, *, has_pose: bool) -> dict[str, str | int | float]:
        """All that decides on a video: what finds poses does so only where there is one."""
        return asdict(self if has_pose else replace(self, pose_weights="", pose_sha256="", pose_fps=0.0))

    def check(self) -> None:
        """Raises `UserError` where sizes contradict each other or make no sense."""
        sides = (self.model_width, self.model_height, self.model_short_side, self.pose_width, self.pose_height)
        if min(*sides, self.pose_fps) < 0 or not math.isfinite(self.pose_fps):
            raise UserError("a size or a rate is below 0 or no number: give pixels, and pictures a second")
        if max(sides[:3]) > LARGEST_SIDE:
            raise UserError(f"a side of {max(sides[:3])} pixels is asked of the model: at most {LARGEST_SIDE}")
        if self.model_short_side and (self.model_width or self.model_height):
            raise UserError("give the size either by its short side or by width and height")
        if bool(self.pose_width) != bool(self.pose_height):
            raise UserError("the size of the pose's canvas has two sides: give WIDTHxHEIGHT")


@dataclass(frozen=True)
class RenderRequest:
    """What to render; at least one of sound, pose and video drives it."""

    image: Path
    output: Path | None
    """The file to write; None where frames are asked for."""
    audio: Path | None = None
    """A sound file, or a video whose sound is taken."""
    pose: Path | None = None
    """A track in any form that `inference.pose_inputs` reads."""
    image_pose: Path | None = None
    """A track whose first moment is the pose in the picture; helps to follow `pose`."""
    text: str = ""
    seed: int = 0
    conditions: tuple[str, ...] | None = None
    """Those to activate instead of what the rules say; see `inference.activation`."""
    video: Path | None = None
    """Gives its pose, and its sound where `options.video_sound` asks for it."""
    options: InputOptions = field(default_factory=InputOptions)

    @classmethod
    def of(cls, files: Mapping[str, Path], output: Path, text: str, seed: int) -> "RenderRequest":
        """From files by their roles, as `inputs` gives them."""
        optional = {role: path for role, path in files.items() if role != "image"}
        return replace(cls(files["image"], output, text=text, seed=seed), **optional)

    def inputs(self) -> dict[str, Path]:
        """The files by their roles."""
        roles = ("image", "audio", "pose", "image_pose", "video")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}

    @property
    def sound_from(self) -> Path | None:
        """The file whose sound drives."""
        return self.video if self.options.video_sound else self.audio

    @property
    def pose_from(self) -> Path | None:
        """The file whose pose drives."""
        return self.pose or self.video

    def check(self) -> None:
        """Finds what is wrong without a look into the files.

        Raises:
            UserError: nothing drives the video, two inputs contradict each other, the output is no .mp4, or a file is
                missing.
        """
        if self.options.video_sound and (self.video is None or self.audio is not None):
            raise UserError("--video-sound takes the sound of --video: give --video, and no --audio")
        if self.sound_from is None and self.pose_from is None:
            raise UserError("nothing drives the video: give --audio, --pose, both, or --video")
        if self.pose is not None and self.video is not None:
            raise UserError("--pose and --video both give a pose: leave one out")
        if self.image_pose is not None and self.pose_from is None:
            raise UserError("--image-pose says where the person stands before following --pose: give --pose too")
        if self.output is not None and self.output.suffix != ".mp4":
            remedy = f"only .mp4 can be written, name it {self.output.with_suffix('.mp4')}"
            raise UserError(f"--output {self.output}: {remedy}")
        if any("\ud800" <= character <= "\udfff" for character in self.text):
            raise UserError("--text is not in UTF-8: no sidecar can hold it")
        for role, path in self.inputs().items():
            if not path.is_file() and not (role in ("pose", "image_pose") and path.is_dir()):
                raise UserError(f"{role} {path}: no such file")
        self.options.check()
