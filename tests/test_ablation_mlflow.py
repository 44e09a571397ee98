"""Arms and seeds as MLflow shows them: its page of comparison, with parallel coordinates, in a real browser."""

import json
import urllib.parse
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.browser import BROWSER, browser
from tests.test_tracking import Server

from omnihuman.config.compose import CONF
from omnihuman.pipeline import parent_run
from omnihuman.pipeline.ablations import load_ablation
from omnihuman.pipeline.arms import TrialResult, Work
from omnihuman.tracking.server import EXPERIMENT

ROOT = Path(__file__).parents[1]
RATIOS = ("text", "reference", "audio", "pose", "audio_mix", "pose_mix", "text_only")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no browser is here; install Debian's package chromium"),
]


def test_mlflow_compares_arms_by_ratios_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run itself does is left out, its figures are data: the question is what becomes of them."""
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    work = Work(ROOT, "c" * 40, load_ablation("audio_mix", "tiny", ROOT / CONF), "tiny")

    def measured(work: Work, trial, *_, **__) -> TrialResult:
        figures = {"opening": {"value": 0.1 * trial.seed + len(trial.arm.name)}}
        return TrialResult(trial, "tiny", work.commit, work.ablation.claims_key, 0, (), figures, {})

    monkeypatch.setattr(parent_run, "run_trial", measured)
    server.start()
    try:
        with parent_run.ablation_run("audio_mix", "tiny", {}) as above:
            for trial in work.ablation.trials[:6]:
                parent_run.run_tracked_trial(work, trial, {})
        client = MlflowClient(server.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{above.run_id}'")
        assert len(children) == 6
        for child in children:
            numbers = {name: float(child.data.params[f"ratio/{name}"]) for name in RATIOS}
            assert min(numbers.values()) >= 0 and float(child.data.params["seed"]) in (1, 2)
        query = urllib.parse.urlencode(
            {
                "runs": json.dumps([child.info.run_id for child in children]),
                "experiments": json.dumps([experiment.experiment_id]),
            }
        )
        with browser(tmp_path / "profile") as page:
            page.size(1400, 1800)
            page.open(f"{server.uri}/#/compare-runs?{query}")
            page.until("document.querySelectorAll('.parcoords').length > 0")
            for name in ("ratio/audio_mix", "ratio/pose", "seed", "opening/value", "audio_100 seed 2"):
                page.until(f"document.body.innerText.includes('{name}')")
            axes = page.evaluate("[...document.querySelectorAll('.parcoords .axis-title')].map(x => x.textContent)")
            assert {"ratio/audio_mix", "seed", "opening/value"} <= set(axes)
            assert not [told for told in page.said if "exceptionDetails" in told]
    finally:
        server.stop()
