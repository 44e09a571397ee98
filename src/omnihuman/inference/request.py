"""What to render: the files, the text and the seed of one video."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from omnihuman.errors import UserError


@dataclass(frozen=True)
class RenderRequest:
    """What to render; at least one of sound and pose drives the video."""

    image: Path
    output: Path
    audio: Path | None = None
    pose: Path | None = None
    """NAME.keypoints.npz with `points` [F, K, 3] and `seconds` [F]."""
    image_pose: Path | None = None
    """A track whose first moment is the pose in the picture; helps to follow `pose`."""
    text: str = ""
    seed: int = 0
    conditions: tuple[str, ...] | None = None
    """Those to activate instead of what the rules say; see `inference.activation`."""

    @classmethod
    def of(cls, files: Mapping[str, Path], output: Path, text: str, seed: int) -> "RenderRequest":
        """From files by their roles, as `inputs` gives them."""
        optional = {role: path for role, path in files.items() if role != "image"}
        return replace(cls(files["image"], output, text=text, seed=seed), **optional)

    def inputs(self) -> dict[str, Path]:
        """The files by their roles."""
        given = {"image": self.image, "audio": self.audio, "pose": self.pose, "image_pose": self.image_pose}
        return {role: path for role, path in given.items() if path is not None}

    def check(self) -> None:
        """Finds what is wrong without a look into the files.

        Raises:
            UserError: nothing drives the video, the output is no .mp4, or a file is missing.
        """
        if self.audio is None and self.pose is None:
            raise UserError("nothing drives the video: give --audio, --pose or both")
        if self.image_pose is not None and self.pose is None:
            raise UserError("--image-pose says where the person stands before following --pose: give --pose too")
        if self.output.suffix.lower() != ".mp4":
            remedy = f"only .mp4 can be written, name it {self.output.with_suffix('.mp4')}"
            raise UserError(f"--output {self.output}: {remedy}")
        for role, path in self.inputs().items():
            if not path.is_file():
                raise UserError(f"{role} {path}: no such file")
