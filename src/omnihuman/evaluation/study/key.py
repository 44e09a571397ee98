"""What the raters must not know: which system made which video. It lies beside the published folder, never inside."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.evaluation.study.description import Rules
from omnihuman.storage.files import publish


@dataclass(frozen=True)
class Video:
    """What a file without a name shows."""

    system: str
    item: str
    is_damaged: bool = False
    """On purpose, for an anchor."""


@dataclass(frozen=True)
class Trial:
    """Videos that are shown side by side."""

    item: str
    videos: tuple[str, ...]
    """Hidden names, in the order of their text."""
    is_anchor: bool = False


@dataclass(frozen=True)
class Key:
    """The key of a study."""

    study: str
    """Hash of all that was published."""
    secret: str
    """Hides the names: nobody can compute them from those of systems and items."""
    title: str
    systems: tuple[str, ...]
    questions: tuple[str, ...]
    raters: tuple[str, ...]
    """Who may answer; empty: anybody."""
    trials_per_rater: int
    """Beside anchors and repeats."""
    rules: Rules
    videos: dict[str, Video]
    trials: dict[str, Trial]

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Key":
        """Reads it.

        Raises:
            UserError: it is missing, or no key of a study.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            lists = {name: tuple(told[name]) for name in ("systems", "questions", "raters")}
            videos = {name: Video(**video) for name, video in told["videos"].items()}
            trials = {
                name: Trial(**{**trial, "videos": tuple(trial["videos"])}) for name, trial in told["trials"].items()
            }
            return cls(**{**told, **lists, "rules": Rules(**told["rules"]), "videos": videos, "trials": trials})
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; `omnihuman study make` writes it beside its folder") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is no key of a study ({error!r})") from error


def key_path(folder: Path) -> Path:
    """Where the key of a published folder lies."""
    return folder.with_name(f"{folder.name}.key.json")
