"""Writing a study: a folder of static files that any host or a memory stick can carry, and beside it the key."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from omnihuman.errors import UserError
from omnihuman.evaluation.study.clips import find_references, find_videos, plan_clips, write_clips
from omnihuman.evaluation.study.description import Description
from omnihuman.evaluation.study.key import Key, key_path
from omnihuman.evaluation.study.plan import hidden, plan
from omnihuman.media.picture import read_picture
from omnihuman.storage.files import file_sha256, publish_folder

PAGE, MEDIA = "index.html", "media"
_REFERENCE_SIDE = 512


def make(description: Description, folder: Path) -> Path:
    """Writes the study's folder and the key beside it.

    Returns:
        The key's path.

    Raises:
        UserError: there is a study already, or the videos do not fit one another.
    """
    folder = folder.absolute()
    key_file = key_path(folder)
    if key_file.exists() or folder.exists():
        taken = key_file if key_file.exists() else folder
        raise UserError(f"{taken} exists: answers may belong to it; give another folder, or remove it")
    videos = find_videos(description)
    references = find_references(description, tuple(videos))
    clips = plan_clips(description, videos)
    secret = secrets.token_hex(16)
    shown, trials = plan(description, tuple(videos), secret)
    with publish_folder(folder) as temporary:
        media = temporary / MEDIA
        media.mkdir()
        paths = {name: media / f"{name}.mp4" for name in shown}
        write_clips([(clips[video.item, video.system], paths[name], video.is_damaged) for name, video in shown.items()])
        pictures = {item: hidden(secret, "picture", item) for item in references}
        for item, name in pictures.items():
            _save_picture(references[item], media / f"{name}.jpg")
        published = _published(description, trials, pictures)
        published["study"] = _study_hash(published, media)
        (temporary / PAGE).write_text(_page(published), encoding="utf-8")
        per_rater = description.trials_per_rater or sum(not trial.is_anchor for trial in trials.values())
        key = Key(
            published["study"], secret, description.title, tuple(description.systems), description.questions,
            description.raters, per_rater, description.rules, shown, trials,
        )  # fmt: skip
    key.save(key_file)
    return key_file


def _published(description: Description, trials: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """All that the page knows. Nothing leads to a system, nor to anchors unless raters see a part of the trials."""
    texts = description.page_texts()
    wording = {**texts, "identity": texts["identity_picture" if pictures else "identity"]}
    return {
        "title": description.title,
        "language": description.language,
        "texts": wording,
        "questions": description.questions,
        "raters": description.raters,
        "trialsPerRater": description.trials_per_rater or len(trials),
        "repeats": description.repeats,
        "trials": [
            {
                "id": name,
                "videos": trial.videos,
                "always": trial.is_anchor and bool(description.trials_per_rater),
                "picture": pictures.get(trial.item, ""),
            }
            for name, trial in trials.items()
        ],
    }


def _study_hash(published: Mapping[str, Any], media: Path) -> str:
    """Of all that raters see."""
    told = json.dumps(published, sort_keys=True) + "".join(
        f"{path.name} {file_sha256(path)}\n" for path in sorted(media.iterdir())
    )
    return hashlib.sha256(told.encode()).hexdigest()


def _save_picture(source: Path, target: Path) -> None:
    picture = Image.fromarray(read_picture(source))
    picture.thumbnail((_REFERENCE_SIDE, _REFERENCE_SIDE))
    picture.save(target, quality=92)


def _page(published: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(published=published)
