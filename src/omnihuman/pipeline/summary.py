"""What a run made, as a table for a terminal."""

import json
from pathlib import Path

from omnihuman.pipeline.release import Release
from omnihuman.pipeline.services import running
from omnihuman.tracking.server import tracking_uri


def summary(reports: Path, models: Path, rendered: Path | None, release: Release) -> str:
    """Lines of text: the funnel, what each stage did, the figures good or bad with their intervals, what the registry
    made of it, where to look.
    """
    funnel = json.loads((reports / "funnel.json").read_text())
    figures = json.loads((reports / "evaluation.json").read_text())
    lines = ["", "Clips", *_funnel(funnel), "", "Stages"]
    lines += [_stage(json.loads(path.read_text())) for path in sorted(models.glob("[!.]*/model.json"))]
    lines += ["", f"Held-out people and sounds (mean, {figures['confidence']:.0%} interval)", *_figures(figures)]
    lines += ["", "Registry", *_release(release)]
    lines += ["", "Where to look"]
    places = [
        ("why each clip may or may not train", reports / "funnel.html"),
        ("real and generated, side by side", reports / "evaluation"),
        ("all figures", reports / "evaluation.json"),
        ("a rendered video", rendered or Path("none: no held-out clip has sound")),
        ("what the video was made from", f"omnihuman lineage {rendered}" if rendered else "-"),
        ("runs and their curves (MLflow)", _mlflow()),
        ("flow runs (Prefect)", _prefect()),
    ]
    return "\n".join(lines + [f"  {what:<38} {where}" for what, where in places])


def _funnel(funnel: dict) -> list[str]:
    shown = {key: value for key, value in funnel.items() if isinstance(value, int)}
    return [
        f"  {key.replace('_', ' '):<38} {value}" for key, value in shown.items() if not key.startswith("first_fail")
    ]


def _stage(description: dict) -> str:
    done = description["note"] or f"{description['num_steps']} steps"
    clips = ", ".join(f"{count} for {modality}" for modality, count in sorted(description["num_clips"].items()))
    return f"  {description['stage']:<38} {done}; training clips: {clips}"


def _release(release: Release) -> list[str]:
    name = f"version {release.candidate.version}" if release.candidate else "no version"
    first, *rest = release.said.splitlines()
    return [f"  {name:<38} {first}", *(f"      {line}" for line in rest)]


def _mlflow() -> str:
    uri = tracking_uri()
    return uri if uri.startswith("http") else f"mlflow server --workers 1 --backend-store-uri {uri}"


def _prefect() -> str:
    ports = running()
    return f"http://127.0.0.1:{ports.prefect}" if ports else "omnihuman up"


def _figures(figures: dict) -> list[str]:
    rows = []
    for name, follows in (("opening", "loudness"), ("width", "vowel")):
        part = figures[name]
        rows += [
            _row(f"mouth {name} follows {follows}, correlation", part["generated"]),
            _row("    with shuffled sound", part["null"]),
            _row("    in the real clips", part["real"]),
        ]
    pose = figures["pose_distance"]
    return [
        *rows,
        _row("background against the reference, dB", figures["background_psnr_db"]),
        _row("keypoints to driving pose, % of height", pose["to_driving"], 100),
        _row("    to the reference's pose", pose["to_reference"], 100),
        _row("how much nearer to the driving pose", pose["gain"], 100),
        _row("    driven by the pose of another moment", pose["null"], 100),
        _row("    by a still reference picture", pose["still"], 100),
        _row("    by the real clips, a frame late", pose["real"], 100),
        _row("more than by another moment's pose", pose["over_null"], 100),
        _row("more than by a still picture", pose["over_still"], 100),
    ]


def _row(name: str, estimate: dict, scale: float = 1.0) -> str:
    if estimate["value"] is None:
        return f"  {name:<44} not measured: no held-out clip has what it takes"
    value, low, high = (scale * estimate[key] for key in ("value", "low", "high"))
    behind = f"{estimate['num_clips']} clips, {estimate['num_people']} people"
    return f"  {name:<44} {value:7.3f}  [{low:.3f}, {high:.3f}]  {behind}"
