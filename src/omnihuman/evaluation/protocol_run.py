"""`omnihuman evaluate --protocol`: from items, and a model or a folder of videos, to a report."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from omnihuman.config.schema.protocol import EvaluationProtocol
from omnihuman.errors import UserError
from omnihuman.evaluation.drift import WINDOW_SECONDS
from omnihuman.evaluation.encoded_items import export_held_out
from omnihuman.evaluation.item_videos import Rendering, render_items, videos_key
from omnihuman.evaluation.items import items_sha256, read_items
from omnihuman.evaluation.metrics.measure import Metric
from omnihuman.evaluation.prepared import PreparedItem, prepare
from omnihuman.evaluation.previews import with_previews
from omnihuman.evaluation.protocols import protocol_hash
from omnihuman.evaluation.report import PAGE, write_page
from omnihuman.evaluation.results import ITEMS, SystemReport, write_items
from omnihuman.evaluation.scoring import Pair, score
from omnihuman.evaluation.video_sets import VideoSet, match_videos
from omnihuman.model.checkpoint import WEIGHTS
from omnihuman.storage.files import file_sha256, publish_folder
from omnihuman.storage.work import content_key, held_work_folder

VIDEOS = "videos"
"""Folder of our own model's videos in a report."""


@dataclass(frozen=True)
class Named:
    """A protocol with the name of its file, and the metrics that it names."""

    name: str
    protocol: EvaluationProtocol
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Prepared:
    """Items at what the protocol says, in a folder."""

    items: tuple[PreparedItem, ...]
    sha256: str


def prepare_items(protocol: EvaluationProtocol, place: Path, folder: Path) -> Prepared:
    """Reads a list or a folder of items and writes their pictures, sounds and poses below `folder`.

    Raises:
        UserError: as `items.read_items` and `prepared.prepare`.
    """
    if protocol.items.layout == "encoded" and place.is_dir():
        found = export_held_out(place, protocol, folder / "exported")
    else:
        found = read_items(protocol, place)
    return Prepared(tuple(prepare(found, protocol, folder)), items_sha256(found))


def export_items(protocol: EvaluationProtocol, place: Path, output: Path) -> Prepared:
    """Writes what every system starts from: ITEM.png, and ITEM.wav and ITEM.keypoints.npz where they drive.

    Raises:
        UserError: items cannot be used, or `output` is there and not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there and not empty; name another folder by -o")
    with publish_folder(output) as folder:
        return prepare_items(protocol, place, folder)


def evaluate_model(named: Named, place: Path, rendering: Rendering, system: str, output: Path) -> SystemReport:
    """Renders every item and scores the videos; a second call goes on where a killed one was.

    Args:
        place: the items, as `read_items` takes them.
        output: the report's folder; the videos come into it.

    Raises:
        UserError: items or the model cannot be used, or an earlier content of `output` is no report.
    """
    _check_place(output)
    with TemporaryDirectory() as folder:
        prepared = prepare_items(named.protocol, place, Path(folder))
        with held_work_folder(videos_key(prepared.sha256, named.protocol, rendering)) as work:
            render_items(prepared.items, named.protocol, rendering, work)
            videos = match_videos(work, prepared.items, named.protocol.clips)
            model_sha256 = file_sha256(rendering.model / WEIGHTS)
            report = _report(named, videos, prepared.sha256, system, model_sha256, output, keep=work)
            shutil.rmtree(work)
    return report


def evaluate_videos(named: Named, videos: Path, place: Path | None, system: str, output: Path) -> SystemReport:
    """Scores the videos of any system.

    Args:
        place: the items; None: each video is one, with its own sound and without a real one.

    Raises:
        UserError: items cannot be used, videos do not fit them, or an earlier content of `output` is no report.
    """
    _check_place(output)
    if place is None:
        matched = match_videos(videos, (), named.protocol.clips)
        wanted = named.protocol.items.num_videos
        if wanted and len(matched.items) != wanted:
            raise UserError(f"videos {videos}: {len(matched.items)} are there, and the protocol says {wanted}")
        names = content_key(items=[item.item for item in matched.items])
        return _report(named, matched, names, system, "", output)
    with TemporaryDirectory() as folder:
        prepared = prepare_items(named.protocol, place, Path(folder))
        matched = match_videos(videos, prepared.items, named.protocol.clips)
        return _report(named, matched, prepared.sha256, system, "", output)


def _report(
    named: Named,
    videos: VideoSet,
    sha256: str,
    system: str,
    model_sha256: str,
    output: Path,
    keep: Path | None = None,
) -> SystemReport:
    protocol = named.protocol
    with publish_folder(output) as folder:
        pairs = with_previews(videos.pairs(), folder)
        scores = score(named.metrics, _counted(pairs, len(videos.items)), protocol.confidence, protocol.seed)
        instruments = {figure.metric: figure.extractor for figure in scores.figures}
        report = SystemReport(
            system=system,
            model_sha256=model_sha256,
            protocol=named.name,
            protocol_hash=protocol_hash(protocol, sha256, instruments),
            figures=scores.figures,
            people=scores.people,
            curves=scores.curves,
            window_seconds=WINDOW_SECONDS,
        )
        report.save(folder)
        if keep is not None:
            shutil.copytree(keep, folder / VIDEOS, ignore=shutil.ignore_patterns("segments", ".*"))
        write_page([(report, folder)], folder)
    return report


def _counted(pairs: Iterable[Pair], total: int) -> Iterator[Pair]:
    yield from tqdm(pairs, total=total, desc="measure", file=sys.stderr, mininterval=2.0)


def _check_place(output: Path) -> None:
    """Refuses to replace what is no report."""
    if output.exists() and not (output / PAGE).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there and is no report; name another folder by -o")


def compare(places: Sequence[Path], output: Path) -> list[SystemReport]:
    """Joins several reports into one page and one table of items.

    Raises:
        UserError: one cannot be read, or two are of one system under one protocol.
    """
    _check_place(output)
    reports = [SystemReport.load(place) for place in places]
    seen: dict[tuple[str, str], Path] = {}
    for report, place in zip(reports, places, strict=True):
        key = (report.protocol, report.system)
        if key in seen:
            raise UserError(
                f"{seen[key]} and {place} are both reports of {report.system} under {report.protocol}: leave one out,"
                " or evaluate with another --name"
            )
        seen[key] = place
    folders = [place if place.is_dir() else place.parent for place in places]
    with publish_folder(output) as folder:
        write_items(folder / ITEMS, (row for report in reports for row in report.rows()))
        write_page(list(zip(reports, folders, strict=True)), folder)
    return reports
