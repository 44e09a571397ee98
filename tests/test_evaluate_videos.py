"""Any system's videos under a protocol: figures, tables, and one clear message where something does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.video_items import FPS, HEIGHT, PROTOCOL, WIDTH, named, square, write_list, write_set
from tests.written import tone

from omnihuman.config.schema.protocol import ItemsOf
from omnihuman.errors import UserError
from omnihuman.evaluation.protocol_run import compare, evaluate_videos, export_items
from omnihuman.evaluation.results import SystemReport
from omnihuman.media.write import write_video


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_list(folder / "items.jsonl", write_set(folder / "real"))
    write_set(folder / "good", noise=2)
    write_set(folder / "bad", noise=25)
    for name in ("good", "bad", "real"):
        evaluate_videos(named(), folder / name, folder / "items.jsonl", name, folder / "reports" / name)
    return folder


def test_figures_items_and_page_of_a_folder_of_videos(sets: Path) -> None:
    folder = sets / "reports/good"
    figure = SystemReport.load(folder).figures[0]
    table = pd.read_csv(folder / "items.csv")
    assert list(table.columns) == ["protocol", "system", "item", "person", "metric", "value"]
    people = dict(zip(table["item"], table["person"], strict=True))
    assert people == {"person-0": "p0", "person-1": "p0", "person-2": "p1"}
    assert table["value"].mean() == pytest.approx(figure.estimate.value)
    assert figure.estimate.low <= figure.estimate.value <= figure.estimate.high
    assert figure.floor is not None and figure.floor > figure.estimate.value, "noise flickers"
    assert "good" in (folder / "report.html").read_text(encoding="utf-8")


def test_more_damage_is_a_worse_figure_and_a_comparison_says_so(sets: Path, tmp_path: Path) -> None:
    good, bad = compare([sets / "reports/good", sets / "reports/bad"], tmp_path / "both")
    assert good.protocol_hash == bad.protocol_hash
    assert good.figures[0].estimate.low > bad.figures[0].estimate.high
    markdown = (tmp_path / "both/tables.md").read_text(encoding="utf-8")
    assert "| good | **" in markdown and "| bad | **" not in markdown
    assert set(pd.read_csv(tmp_path / "both/items.csv")["system"]) == {"good", "bad"}


def test_real_videos_against_themselves_are_as_good_as_the_floor(sets: Path) -> None:
    figure = SystemReport.load(sets / "reports/real").figures[0]
    assert figure.floor == pytest.approx(figure.estimate.value, abs=1e-3)


def test_without_items_each_video_is_one(sets: Path, tmp_path: Path) -> None:
    report = evaluate_videos(named(), sets / "good", None, "good", tmp_path / "good")
    assert report.figures[0].estimate.num_clips == 3 and report.figures[0].floor is None
    assert report.protocol_hash != SystemReport.load(sets / "reports/good").protocol_hash
    wanted = replace(PROTOCOL, items=ItemsOf("plain", num_videos=4))
    with pytest.raises(UserError, match="3 are there, and the protocol says 4"):
        evaluate_videos(named(wanted), sets / "good", None, "good", tmp_path / "more")


def test_all_that_does_not_fit_is_listed_at_once(sets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write_video(folder / "person-0.mp4", square(0, num_frames=30), FPS)
    write_video(folder / "person-1.mp4", square(1, width=64, height=48), 30.0)
    write_video(folder / "stranger.mp4", square(3), FPS)
    (folder / "person-2.mp4").write_bytes((sets / "good/person-2.mp4").read_bytes()[:700])
    with pytest.raises(UserError) as raised:
        evaluate_videos(named(), folder, sets / "items.jsonl", "broken", tmp_path / "report")
    said = str(raised.value)
    assert "person-0.mp4: has 30 frames, the item 10" in said
    assert f"person-1.mp4: has 64 x 48 pixels, the item {WIDTH} x {HEIGHT}" in said
    assert "person-1.mp4: has 30 frames a second, the protocol 25" in said
    assert "stranger.mp4: no item has this name" in said and "person-2.mp4: " in said
    (folder / "person-0.mp4").unlink()
    with pytest.raises(UserError, match="person-0: no video of this name"):
        evaluate_videos(named(), folder, sets / "items.jsonl", "broken", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_difference_within_the_tolerance_is_cut(sets: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"longer/person-{number}.mp4", square(number, num_frames=11), FPS)
    report = evaluate_videos(named(), tmp_path / "longer", sets / "items.jsonl", "longer", tmp_path / "report")
    assert report.figures[0].estimate.num_clips == 3


def test_too_few_videos_give_no_number_and_say_how_many_are_needed(sets: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "one", count=1)
    report = evaluate_videos(named(), tmp_path / "one", None, "one", tmp_path / "report")
    assert np.isnan(report.figures[0].estimate.value)
    assert json.loads((tmp_path / "report/report.json").read_text())["figures"][0]["estimate"]["value"] is None
    assert "needs 2 videos, there are 1" in (tmp_path / "report/report.html").read_text(encoding="utf-8")


def test_two_systems_of_one_name_and_places_that_are_no_reports(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"both reports of good under squares.*another --name"):
        compare([sets / "reports/good", sets / "reports/good/report.json"], tmp_path / "both")
    with pytest.raises(UserError, match="name one that `omnihuman evaluate` wrote"):
        compare([tmp_path], tmp_path / "both")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is there and is no report"):
        evaluate_videos(named(), sets / "good", None, "good", tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").exists()


def test_items_are_written_for_other_systems_to_start_from(sets: Path, tmp_path: Path) -> None:
    prepared = export_items(PROTOCOL, sets / "items.jsonl", tmp_path / "items")
    assert [item.num_frames for item in prepared.items] == [10, 10, 10]
    assert {path.name for path in (tmp_path / "items").iterdir()} == {
        f"person-{number}.{suffix}" for number in range(3) for suffix in ("png", "wav")
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('{"item": "a", "video": "real/person-0.mp4", "colour": "red"}', "line 1: unknown column 'colour'"),
        ('{"item": "a", "video": "gone.mp4"}', "video .*gone.mp4: no such file"),
        ('{"item": "a/b", "video": "real/person-0.mp4"}', "item is 'a/b'"),
        ('{"item": "a"}', "a: has neither a picture nor a real video"),
        ('{"item": "a", "video": "real/person-0.mp4"}\n' * 2, "a: several items have this name"),
        ("[1]", "line 1: unknown column"),
        ("{", "cannot be read"),
    ],
)
def test_a_list_that_is_wrong_says_where(sets: Path, rows: str, said: str, tmp_path: Path) -> None:
    wrong = sets / "wrong.jsonl"
    wrong.write_text(rows)
    with pytest.raises(UserError, match=said):
        evaluate_videos(named(), sets / "good", wrong, "good", tmp_path / "report")


def test_a_table_of_items_reads_as_the_list_does(sets: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (sets / "items.jsonl").read_text().splitlines()]
    pd.DataFrame(rows).to_csv(sets / "items.csv", index=False)
    one = evaluate_videos(named(), sets / "good", sets / "items.csv", "good", tmp_path / "csv")
    assert one == SystemReport.load(sets / "reports/good")


def test_a_real_video_without_sound_cannot_drive(tmp_path: Path) -> None:
    write_video(tmp_path / "real/mute.mp4", square(0), FPS)
    write_video(tmp_path / "real/loud.mp4", square(1), FPS, tone(0.4))
    with pytest.raises(UserError, match=r"mute: mute.mp4 holds no sound"):
        export_items(PROTOCOL, tmp_path / "real", tmp_path / "items")
