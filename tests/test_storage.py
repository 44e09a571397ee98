"""Nobody sees half a file or folder, whatever ends the writer."""

import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from omnihuman.storage.files import file_sha256, publish, publish_folder, remove_abandoned
from omnihuman.storage.work import content_key, held_work_folder, omnihuman_home, work_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.parquet"
    with publish(path) as temporary:
        assert temporary.suffix == ".parquet" and temporary.parent == path.parent
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(ZeroDivisionError), publish(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "shards"
    with publish_folder(path) as temporary:
        (temporary / "a").write_text("1")
    with publish_folder(path) as temporary:
        (temporary / "b").write_text("2")
        assert (path / "a").exists()
    assert [entry.name for entry in path.iterdir()] == ["b"]
    assert path.stat().st_mode & 0o777 == 0o755
    with pytest.raises(ZeroDivisionError), publish_folder(path) as temporary:
        (temporary / "c").write_text("3")
        raise ZeroDivisionError
    assert [entry.name for entry in path.iterdir()] == ["b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["shards"]


@pytest.mark.parametrize("kind", ["publish", "publish_folder"])
def test_a_killed_writer_leaves_the_old_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    write = "t.write_text(s)" if kind == "publish" else "(t / 'file').write_text(s)"
    program = (
        "import os, signal, sys; from pathlib import Path; from omnihuman.storage import files\n"
        "s = sys.argv[2]\n"
        f"with files.{kind}(Path(sys.argv[1])) as t:\n"
        f"    {write}\n"
        "    if s == 'half': os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for content, ended in (("old", 0), ("half", -signal.SIGKILL)):
        result = subprocess.run([sys.executable, "-c", program, str(path), content], check=False)
        assert result.returncode == ended
    assert (path if kind == "publish" else path / "file").read_text() == "old"


def test_what_a_killed_writer_had_begun_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "video [1].mp4"
    program = (
        "import os, signal, sys; from pathlib import Path; from omnihuman.storage import files\n"
        "with files.publish(Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    (abandoned,) = tmp_path.iterdir()
    with publish(path) as temporary:
        temporary.write_text("whole")
        remove_abandoned(tmp_path / "video.mp4")
        assert abandoned.exists(), "it belongs to another file"
        remove_abandoned(path)
        assert not abandoned.exists() and temporary.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert file_sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_content_key_depends_on_content_not_on_order() -> None:
    assert content_key(a=1, b={"x": 2, "y": 3}) == content_key(b={"y": 3, "x": 2}, a=1)
    assert len({content_key(a=1), content_key(a=2), content_key(b=1), content_key(a="1")}) == 4


def test_equal_work_waits_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path))
    program = (
        "import time; from omnihuman.storage.work import held_work_folder\n"
        "with held_work_folder('key') as folder:\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    Timer(1.5, holder.kill).start()
    with held_work_folder("other"):
        assert holder.poll() is None, "another key does not wait"
    with held_work_folder("key") as folder:
        assert holder.poll() is not None, "a killed process lets go"
        folder.rmdir()
    with held_work_folder("key") as folder:
        assert folder.is_dir(), "though it was finished and removed"
    holder.communicate()


def test_work_lies_under_the_home_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    folder = work_folder("key")
    assert folder == tmp_path / "home" / "work" / "key" and folder.is_dir()
    monkeypatch.delenv("OMNIHUMAN_HOME")
    assert omnihuman_home() == Path.home() / ".omnihuman"
