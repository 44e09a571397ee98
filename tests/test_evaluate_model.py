"""Our own model under a protocol: every item is rendered once, also where it was stopped, and on any devices."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import DESCRIPTION, random_model, write_encoded
from tests.video_items import HEIGHT, PROTOCOL, WIDTH, named, write_list, write_set

from omnihuman.config.protocols import load_protocol
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.config.schema.protocol import Clips, ItemsOf
from omnihuman.errors import UserError
from omnihuman.evaluation import item_videos
from omnihuman.evaluation.item_videos import Rendering, render_items, videos_key
from omnihuman.evaluation.items import items_sha256, read_items
from omnihuman.evaluation.prepared import prepare
from omnihuman.evaluation.protocol_run import evaluate_model, evaluate_videos, prepare_items
from omnihuman.media.probe import probe
from omnihuman.model.checkpoint import save_model
from omnihuman.storage.files import file_sha256
from omnihuman.storage.work import work_folder


@pytest.fixture(scope="module")
def rendering(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    folder = tmp_path_factory.mktemp("model") / "3_pose"
    folder.mkdir()
    save_model(folder, random_model(), DESCRIPTION)
    return Rendering(folder, Sampling(num_steps=1), Render(content_credentials=False), batch_size=2)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    return write_list(folder / "items.jsonl", write_set(folder / "real"))


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_and_renders_nothing_twice(
    rendering: Rendering, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write_rendered = item_videos.write_rendered

    def counted(path: Path, *rest):
        if len(written) == 2 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        written.append(path.stem)
        return write_rendered(path, *rest)

    monkeypatch.setattr(item_videos, "write_rendered", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(named(), items, rendering, "ours", tmp_path / "report")
    assert not (tmp_path / "report").exists()
    report = evaluate_model(named(), items, rendering, "ours", tmp_path / "report")
    assert sorted(written) == ["person-0", "person-1", "person-2"], "each once"
    assert report.model_sha256 == file_sha256(rendering.model / "model.safetensors")
    found = probe(tmp_path / "report/videos/person-1.mp4")
    assert (found.width, found.height, found.fps, found.num_frames) == (WIDTH, HEIGHT, 25.0, 10)
    assert (tmp_path / "report/videos/person-1.mp4.json").is_file(), "its provenance"
    key = videos_key(items_sha256(read_items(PROTOCOL, items)), PROTOCOL, rendering)
    assert not any(work_folder(key).iterdir()), "what is finished lies in the report"
    again = evaluate_videos(named(), tmp_path / "report/videos", items, "ours again", tmp_path / "again")
    assert again.figures == report.figures and again.protocol_hash == report.protocol_hash


@pytest.mark.slow
def test_two_processes_over_one_list_make_the_same_videos(rendering: Rendering, items: Path, tmp_path: Path) -> None:
    prepared = prepare(read_items(PROTOCOL, items), PROTOCOL, tmp_path / "items")
    single = replace(rendering, batch_size=1)
    for devices in (("cpu",), ("cpu", "cpu")):
        render_items(prepared, PROTOCOL, single, tmp_path / str(len(devices)), devices)
    for item in prepared:
        one, two = (file_sha256(tmp_path / f"{count}/{item.item}.mp4") for count in (1, 2))
        assert one == two


def test_what_decides_on_a_video_decides_on_where_it_is_kept(rendering: Rendering) -> None:
    key = videos_key("items", PROTOCOL, rendering)
    assert key == videos_key("items", replace(PROTOCOL, metrics=("fid",)), rendering), "metrics look only"
    others = [
        videos_key("others", PROTOCOL, rendering),
        videos_key("items", replace(PROTOCOL, seed=1), rendering),
        videos_key("items", PROTOCOL, replace(rendering, sampling=Sampling(num_steps=2))),
    ]
    assert len({key, *others}) == 4
    with pytest.raises(UserError, match=r"nowhere: holds no model.safetensors; name the folder"):
        videos_key("items", PROTOCOL, replace(rendering, model=Path("nowhere")))


def test_held_out_clips_are_items_too(tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)] * 3, split="test")
    demo = load_protocol("demo")
    wanted = replace(demo, items=ItemsOf("encoded", num_videos=2), clips=Clips())
    prepared = prepare_items(wanted, tmp_path / "encoded", tmp_path / "items")
    assert [(item.num_frames, item.width, item.height) for item in prepared.items] == [(9, 32, 32)] * 2
    assert all(item.sound and item.picture_pose and not item.pose for item in prepared.items)
    posed = prepare_items(replace(wanted, driven_by=("pose",)), tmp_path / "encoded", tmp_path / "posed")
    assert all(item.pose and not item.sound for item in posed.items)
    with pytest.raises(UserError, match="holds 3 held-out clips that are eligible for audio, and the protocol says 12"):
        prepare_items(demo, tmp_path / "encoded", tmp_path / "more")
