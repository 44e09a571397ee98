from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from omnihuman.batch import Sound
from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.config.schema.score import Score
from omnihuman.data import kept_scores, scoring
from omnihuman.data.deciding import Tables, decide
from omnihuman.data.manifest import CLIPS, SOURCES, read_table, write_table
from omnihuman.data.material import Material, find_material, holding
from omnihuman.data.scorers.content import Scorer
from omnihuman.data.takedowns import RECORD, TakenDown
from omnihuman.media.worker import Limits, Outcome, RunGuarded, run_guarded
from omnihuman.media.write import write_video

CONFIG = Score(short_side_pixels=64)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos, one of them no video, a clip that could not be cut, and ground truth beside them."""
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    (tmp_path / "truth").mkdir()
    rng, sources, clips = np.random.default_rng(0), [], []
    for index in range(4):
        name = f"v{index}"
        path = tmp_path / f"{name}.mp4"
        sound = Sound(rng.normal(0, 0.1, 16000).astype(np.float32), 16000)
        write_video(path, rng.integers(0, 255, (20, 64, 64, 3), np.uint8), 25.0, sound)
        (tmp_path / "truth" / f"{name}.json").write_text("{}")
        sources.append(
            {field.name: None for field in SOURCES}
            | {"source_id": name, "path": path.name, "identity": name, "keypoints_path": "", "status": "ok"}
        )
        status = "error" if index == 3 else "ok"
        clips.append(
            {
                "clip_id": f"c{index}",
                "source_id": name,
                "index": 0,
                "start_seconds": 0.0,
                "end_seconds": 0.8,
                "status": status,
                "error": "no shot" if index == 3 else "",
            }
        )
    (tmp_path / "v2.mp4").write_bytes(b"no video")
    write_table(sources, SOURCES, tmp_path / "sources.parquet")
    write_table(clips, CLIPS, tmp_path / "clips.parquet")
    return tmp_path


def run(folder: Path, guarded: RunGuarded = run_guarded) -> bytes:
    outputs = folder / "scores.parquet", folder / "strips.parquet"
    scoring.score(CONFIG, folder, folder / "clips.parquet", *outputs, guarded)
    return b"".join(path.read_bytes() for path in outputs)


def recording(decoded: list[str]) -> RunGuarded:
    """The local pool, which notes what it is given."""

    def guarded(function: Callable, items: Sequence, limits: Limits, description: str) -> Iterator[Outcome]:
        decoded.extend(job.clip_id for job in items)
        yield from run_guarded(function, items, limits, description)

    return guarded


def test_errors_are_rows_and_a_second_call_decodes_only_those(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(folder)
    table = read_table(folder / "scores.parquet")
    assert table["clip_id"].drop_duplicates().tolist() == ["c0", "c1", "c2", "c3"]
    assert set(table[table["clip_id"] == "c2"]["status"]) == set(table[table["clip_id"] == "c3"]["status"]) == {"error"}
    assert set(table[table["clip_id"] == "c0"]["status"]) <= {"ok", "na"}
    for path in (folder / "scores.parquet", folder / "v0.mp4"):
        path.unlink()
    decoded = []
    monkeypatch.setenv("OMNIHUMAN_WORKERS", "1")
    assert run(folder, recording(decoded)) == first
    assert decoded == ["c2"]


def test_scores_do_not_change_without_the_ground_truth(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(folder)
    for path in (folder / "truth").iterdir():
        path.unlink()
    (folder / "truth").rmdir()
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "a home without finished clips"))
    assert run(folder) == first


def test_a_killed_call_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folder)
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "other home"))
    monkeypatch.setattr(kept_scores, "CLIPS_PER_CHUNK", 1)

    def killed(function: Callable, items: Sequence, limits: Limits, description: str) -> Iterator[Outcome]:
        yield from list(run_guarded(function, items[:1], limits, description))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, killed)
    decoded = []
    assert run(folder, recording(decoded)) == whole
    assert decoded == ["c1", "c2"]


def test_kept_scores_of_a_cut_without_a_table_tell_a_takedown_whose_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_scores, "CLIPS_PER_CHUNK", 1)
    run(folder)
    for name in ("clips", "scores", "strips"):
        (folder / f"{name}.parquet").unlink()
    found = []
    for person in ("v0", "v1"):
        material = Material()
        find_material(material, person, TakenDown(folder / RECORD), [folder])
        found.append(set(holding(material, [folder / "home"])))
    assert [sorted(path.name[:6] for path in files) for files in found] == [["chunk-", "strips"]] * 2
    assert set.union(*found) == {path for path in (folder / "home").rglob("*.parquet")}
    old = min(found[0])
    pq.write_table(pq.read_table(old).drop_columns("source_id"), old)
    assert list(holding(material, [old.parent])) == sorted({old} | found[1]), "an old table may be of anybody"


def test_neither_the_order_of_finishing_nor_the_size_of_blocks_changes_the_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(folder)
    rows = read_table(folder / "scores.parquet")

    def backwards(function: Callable, items: Sequence, limits: Limits, description: str) -> Iterator[Outcome]:
        yield from reversed(list(run_guarded(function, items, limits, description)))

    for number, (chunk, block) in enumerate(((1, 1024), (2, 1))):
        monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / f"home {number}"))
        monkeypatch.setattr(kept_scores, "CLIPS_PER_CHUNK", chunk)
        monkeypatch.setattr(scoring, "CLIPS_PER_BLOCK", block)
        written = run(folder, backwards)
        assert (written == first) == (block == 1024)  # a block is a row group
        assert read_table(folder / "scores.parquet").equals(rows)


def test_a_scorers_exception_is_its_own_row_only() -> None:
    def broken(content: object) -> tuple:
        raise RuntimeError("defect")

    rows = scoring.measure([Scorer(("a", "b"), broken, "1")], None)  # pyright: ignore[reportArgumentType]
    assert [(row.scorer, row.status, row.error) for row in rows] == [
        ("a", "error", "RuntimeError: defect"),
        ("b", "error", "RuntimeError: defect"),
    ]


def test_decide_writes_table_metrics_and_the_same_page_twice(folder: Path) -> None:
    run(folder)
    policy = Decide(
        {"lips": Rule("lip_sync", "audio", at_least=1.1), "arms": Rule("pose_visibility", "pose", at_least=0.9)}
    )
    pages = []
    for _ in range(2):
        paths = [folder / name for name in ("decisions.parquet", "funnel.html", "funnel.json", "funnel")]
        tables = Tables(folder, *(folder / f"{name}.parquet" for name in ("clips", "scores", "strips")))
        decide(policy, tables, *paths)
        pages.append(paths[1].read_text())
    assert pages[0] == pages[1] and "v0.mp4" in pages[0]
    assert "pose_visibility does not apply: no keypoints were declared" in pages[0]
    assert "the clip cannot be used (error): no shot" in pages[0]
    assert '"clips_text": 2' in paths[2].read_text() or '"clips_text": 3' in paths[2].read_text()
