"""Damaged and odd files through the first three steps: each ends in a row, inside its limits, and nothing is left."""

import threading
import time
from pathlib import Path

import psutil
import pytest
from tests.odd_files import WHOLE_NAMES, make

from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.score import Score
from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import SOURCES_TABLE, read_table
from omnihuman.data.scoring import score
from omnihuman.data.shots import split
from omnihuman.data.sources import collect

DEADLINE_SECONDS, MEMORY_MEGABYTES, WORKERS = 20.0, 700, 2
OVERHEAD_MEGABYTES = 500
"""What a worker's process and its libraries need beside the limit, which counts what is asked for after the start."""


class Watch(threading.Thread):
    """The most memory that a process below this one held."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.peak = max(self.peak, process.memory_info().rss)
                except psutil.Error:
                    continue

    def end(self) -> int:
        self._over.set()
        self.join()
        return self.peak


@pytest.mark.slow
@pytest.mark.parametrize("count", [36, pytest.param(300, marks=pytest.mark.soak)])
def test_every_file_ends_in_a_row_inside_its_limits(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMNIHUMAN_WORKERS", str(WORKERS))
    (tmp_path / "videos").mkdir()
    names = {make(tmp_path / "videos", number).name for number in range(count)}
    watch, start = Watch(), time.monotonic()
    watch.start()
    config = Collect(source=str(tmp_path / "videos"), licence="own", deadline_seconds=DEADLINE_SECONDS)
    sources, clips, scores = tmp_path / "sources", tmp_path / "clips.parquet", tmp_path / "scores.parquet"
    collect(config, 1, sources, tmp_path / "truth")
    split(Split(deadline_seconds=DEADLINE_SECONDS, memory_megabytes=MEMORY_MEGABYTES), sources, clips)
    limits = Score(short_side_pixels=64, deadline_seconds=DEADLINE_SECONDS, memory_megabytes=MEMORY_MEGABYTES)
    score(limits, sources, clips, scores, tmp_path / "strips.parquet")
    seconds, peak = time.monotonic() - start, watch.end()

    table = read_table(sources / SOURCES_TABLE)
    table["name"] = table["path"].map(lambda path: Path(path).name)
    of_clips = read_table(clips).merge(table[["source_id", "name"]], on="source_id")
    measured = read_table(scores).merge(of_clips[["clip_id", "name"]], on="clip_id")
    assert set(table["name"]) == set(of_clips["name"]) == set(measured["name"]) == names
    for part in (table, of_clips, measured):
        assert set(part["status"]) <= {"ok", "na", "error", "timeout"}
        assert (part.loc[part["status"].isin(["error", "timeout"]), "error"].str.len() > 5).all()
    whole = table.set_index("name").loc[sorted(WHOLE_NAMES)]
    assert (whole["status"] == "ok").all(), whole[["status", "error"]].to_string()
    fine = measured[measured["name"].isin(WHOLE_NAMES)]
    assert fine["status"].isin(["ok", "na"]).all(), fine[~fine["status"].isin(["ok", "na"])].to_string()
    assert seconds < 3 * DEADLINE_SECONDS * count / WORKERS
    assert peak / 2**20 < MEMORY_MEGABYTES + OVERHEAD_MEGABYTES
    assert not [child for child in psutil.Process().children(recursive=True) if "_work" in " ".join(child.cmdline())]
    print(f"{count} files: {seconds:.1f} s, at most {peak / 2**20:.0f} MB in a process")
    print(table["error"].value_counts().to_string())
