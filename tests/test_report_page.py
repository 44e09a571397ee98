"""The funnel's page in a real browser, at the width of a desk and of a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.test_scoring import CONFIG

from omnihuman.batch import Sound
from omnihuman.config.compose import compose
from omnihuman.data import scoring
from omnihuman.data.deciding import Tables, decide
from omnihuman.data.duplicates import duplicates
from omnihuman.data.manifest import CLIPS, SOURCES, write_table
from omnihuman.media.write import write_video

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = "<script>document.title = document.documentElement.scrollWidth - innerWidth</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser is here; install Debian's package chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of six clips that were scored for real."""
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(5)
    sources, clips = [], []
    for index in range(6):
        path = folder / f"v{index} with a name that is long.mp4"
        sound = Sound(rng.normal(0, 0.1, 16000).astype(np.float32), 16000)
        write_video(path, rng.integers(0, 40 + 40 * index, (20, 64, 48 + 16 * index, 3), np.uint8), 25.0, sound)
        row = {"source_id": f"s{index}", "path": path.name, "keypoints_path": "", "language": "", "status": "ok"}
        sources.append({field.name: None for field in SOURCES} | row)
        row = {"clip_id": f"c{index}", "source_id": f"s{index}", "start_seconds": 0.0, "end_seconds": 0.8}
        clips.append({**row, "index": 0, "status": "ok", "error": ""})
    write_table(sources, SOURCES, folder / "sources.parquet")
    write_table(clips, CLIPS, folder / "clips.parquet")
    tables = Tables(folder, *(folder / f"{name}.parquet" for name in ("clips", "scores", "strips", "duplicates")))
    scoring.score(CONFIG, folder, tables.clips, tables.scores, tables.strips)
    assert tables.duplicates is not None
    duplicates(folder, tables.clips, tables.strips, tables.duplicates, folder / "duplicates.csv")
    outputs = [folder / name for name in ("decisions.parquet", "funnel.html", "funnel.json", "funnel")]
    decide(compose("demo").decide, tables, *outputs)
    return outputs[1]


@pytest.mark.parametrize("width", [1280, 500])  # a headless window is not narrower than 500
def test_the_page_opens_without_a_message_and_fits_its_window(page: Path, width: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    measured = tmp_path / "page.html"
    measured.write_text(page.read_text(encoding="utf-8") + MEASURE, encoding="utf-8")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
    ]
    command = [
        BROWSER,
        *options,
        f"--window-size={width},900",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        measured.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in result.stderr
    found = re.search(r"<title>(-?\d+)</title>", result.stdout)
    assert found and int(found[1]) <= 0, f"wider than its window by {found and found[1]} pixels"
    assert result.stdout.count("data:image/jpeg;base64") >= 6
    assert "http://" not in page.read_text().replace("http://www.w3.org", "")
