"""Protocols as data: each loads, what is wrong in one is named, and the hash is of the content and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.video_items import PROTOCOL, write_set

from omnihuman.config.protocols import load_protocol
from omnihuman.config.schema.evaluate import Extractors
from omnihuman.config.schema.protocol import EvaluationProtocol, ItemsOf
from omnihuman.errors import UserError
from omnihuman.evaluation.items import Item, items_sha256, read_items
from omnihuman.evaluation.metrics.measure import Extractor
from omnihuman.evaluation.metrics.registry import make_metrics
from omnihuman.evaluation.protocols import protocol_hash
from omnihuman.evaluation.published import published_tables

NAMES = sorted(path.stem for path in Path("conf/protocol").glob("*.yaml"))
EXTRACTORS = {"fid": Extractor("Inception", "bilinear to 299", "ab" * 32, calibrated=True)}


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_loads_and_its_metrics_exist(name: str) -> None:
    metrics = make_metrics(load_protocol(name).metrics, Extractors())
    assert len({metric.name for metric in metrics}) == len(metrics) > 0


def test_the_papers_protocols_ask_for_the_papers_numbers_and_columns() -> None:
    body = load_protocol("half_body").items
    assert (body.num_videos, body.num_people) == (269, 119)
    assert (
        load_protocol("portrait_celebv_hq").items.num_videos
        == 100
        == load_protocol("portrait_ravdess").items.num_videos
    )
    for table in published_tables()[1]:
        if not table.name.startswith("ablation"):
            assert set(table.columns) <= set(load_protocol(table.protocol).metrics), table.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: [fid]\nclips: {fsp: 25}", r"unknown key clips.fsp; did you mean clips.fps\?"),
        ("metrics: [fid]\nclips: {fps: fast}", "clips.fps is 'fast', expected a number"),
        ("metrics: [fid]\nclips: {width: 512}", "clips.width is 512 and clips.height 0; set both"),
        ("metrics: [fid]\nclips: {width: 511, height: 512}", "even sides"),
        ("metrics: []", "name at least one"),
        ("metrics: [fid, fid]", "each once"),
        ("metrics: [fid]\ndriven_by: [thought]", "name one or both of audio, pose"),
        ("metrics: [fid]\nitems: {layout: plane}", "items.layout is plane, set it to one of plain"),
        ("metrics: [fid]\nconfidence: 95", "set it between 0 and 1"),
    ],
)
def test_what_is_wrong_in_a_protocol_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol/mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_protocol("mine", tmp_path)


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean half_body"):
        load_protocol("half-body")


def test_the_hash_changes_with_everything_that_decides_on_a_figure() -> None:
    def hashed(protocol: EvaluationProtocol = PROTOCOL, items: str = "i", extractors=EXTRACTORS) -> str:
        return protocol_hash(protocol, items, extractors)

    others = [
        hashed(replace(PROTOCOL, items=replace(PROTOCOL.items, num_videos=2))),
        hashed(replace(PROTOCOL, clips=replace(PROTOCOL.clips, fps=24.0))),
        hashed(replace(PROTOCOL, metrics=("fid",))),
        hashed(replace(PROTOCOL, seed=1)),
        hashed(items="j"),
        hashed(extractors={"fid": replace(EXTRACTORS["fid"], sha256="cd" * 32)}),
        hashed(extractors={"fid": replace(EXTRACTORS["fid"], preprocessing="bicubic to 299")}),
    ]
    assert hashed() == hashed() and len({hashed(), *others}) == len(others) + 1


def test_items_are_hashed_by_content_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_set(tmp_path / folder, count=2)
    found = [items_sha256(read_items(PROTOCOL, tmp_path / folder)) for folder in ("a", "b")]
    assert found[0] == found[1]
    (tmp_path / "b/person-0.mp4").write_bytes((tmp_path / "b/person-1.mp4").read_bytes())
    assert items_sha256(read_items(PROTOCOL, tmp_path / "b")) != found[0]
    items = [Item("a", "anna"), Item("b", "ben")]
    assert items_sha256(items) != items_sha256([replace(items[0], person="ben"), items[1]])


def test_a_subset_is_drawn_by_name_so_that_a_missing_video_moves_no_other(tmp_path: Path) -> None:
    write_set(tmp_path / "all", count=8, num_frames=2)
    wanted = replace(PROTOCOL, items=ItemsOf("plain", num_videos=4))
    chosen = [item.item for item in read_items(wanted, tmp_path / "all")]
    spare = next(path for path in sorted((tmp_path / "all").iterdir()) if path.stem not in chosen)
    spare.unlink()
    assert [item.item for item in read_items(wanted, tmp_path / "all")] == chosen and len(chosen) == 4
    other = replace(wanted, items=replace(wanted.items, seed=1))
    assert [item.item for item in read_items(other, tmp_path / "all")] != chosen


def test_too_few_items_or_another_number_of_people_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, count=3, num_frames=2)
    with pytest.raises(UserError, match="holds 3 items, and the protocol says 100"):
        read_items(replace(PROTOCOL, items=ItemsOf("plain", num_videos=100)), tmp_path)
    with pytest.raises(UserError, match="shows 3 people, and the protocol says 2"):
        read_items(replace(PROTOCOL, items=ItemsOf("plain", num_people=2)), tmp_path)
    with pytest.raises(UserError, match=r"person-0: has no pose; put NAME.keypoints.npz"):
        read_items(replace(PROTOCOL, driven_by=("pose",)), tmp_path)


def test_marks_of_published_values(tmp_path: Path) -> None:
    tables = {table.name: table for table in published_tables()[1]}
    assert tables["portrait_celebv_hq"].rows["OmniHuman"]["fvd"].value == 46.393
    assert not tables["portrait_celebv_hq"].rows["OmniHuman"]["fvd"].doubtful
    assert (
        tables["pose_driven"].rows["DisCo"]["fid"].doubtful and not tables["pose_driven"].rows["DisCo"]["akd"].doubtful
    )
    assert tables["half_body"].rows["DiffGest+MimicMotion"]["hkc"].doubtful
    assert tables["half_body"].rows["DiffTED"]["hkv"].value is None
    assert not any(table.protocol_hash for table in tables.values()), "nobody has published one"
    told = 'source: s\nt: {title: t, note: n, protocol: p, protocol_hash: "", columns: [fid, fvd], rows: {A: [1, 2]}, '
    (tmp_path / "low.yaml").write_text(told + "doubtful: {fvd: L}}")
    row = published_tables(tmp_path / "low.yaml")[1][0].rows["A"]
    assert row["fid"].value == 1 and row["fvd"].value is None, "uncertain values are never shown"
