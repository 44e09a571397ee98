"""What an ablation will run, and what its arms came to, as tables for a terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnihuman.config.compose import CONF, compose
from omnihuman.errors import UserError
from omnihuman.pipeline.arms import RESULTS, Arm, ArmResult, load_arms
from omnihuman.pipeline.graph import StepNode, nodes
from omnihuman.storage.files import publish
from omnihuman.storage.work import content_key


def plan(root: Path, name: str, profile: str) -> str:
    """Lines of text: arms with their overrides, and for each step which arms run it and which share it.

    Raises:
        UserError: as `load_arms`.
    """
    arms = load_arms(name, profile, root / CONF)
    graph = nodes(root)
    firsts = first_to_run(graph, {arm.name: asdict(compose(profile, arm.overrides, root / CONF)) for arm in arms})
    rows = [
        [step, *("runs" if firsts[arm.name][step] == arm.name else f"as {firsts[arm.name][step]}" for arm in arms)]
        for step in graph
    ]
    runs = sum(row.count("runs") for row in rows)
    lines = [
        f"{name}: {len(arms)} arms of profile {profile}",
        *(f"  {arm.name}: {' '.join(arm.overrides)}" for arm in arms),
    ]
    table = _table([["step", *(arm.name for arm in arms)], *rows])
    total = f"{runs} steps to run instead of {len(graph) * len(arms)}; fewer where the cache holds them already"
    return "\n".join([*lines, "", *table, "", total])


def first_to_run(graph: dict[str, StepNode], params: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """By arm and step, the first arm whose step has the same parameters, as have all steps before it.

    Args:
        graph: every step after those that it depends on.
        params: by arm, its whole params.yaml.
    """
    owners: dict[str, str] = {}
    firsts: dict[str, dict[str, str]] = {}
    for arm, tree in params.items():
        keys: dict[str, str] = {}
        for step, node in graph.items():
            values = {name: _at(tree, name) for name in node.params}
            keys[step] = content_key(step=step, values=values, after=[keys[before] for before in node.after])
            owners.setdefault(keys[step], arm)
        firsts[arm] = {step: owners[key] for step, key in keys.items()}
    return firsts


def report(root: Path, name: str) -> str:
    """A table of the arms' figures; the same goes as JSON to reports/ablation/NAME.json.

    Raises:
        UserError: an arm has not been run to its end, or the arms ran with different code or profiles.
    """
    results = [_result(root, name, path.stem) for path in sorted((root / RESULTS / name).glob("*.json"))]
    if not results:
        raise UserError(f"no arm of {name} has run here; run `omnihuman ablate run {name}`")
    arms = load_arms(name, results[0].profile, root / CONF)
    results = [_matching(results, arm, name) for arm in arms]
    if len({(result.profile, result.commit) for result in results}) > 1:
        ran = ", ".join(f"{result.arm.name} ({result.profile}, {result.commit[:8]})" for result in results)
        raise UserError(
            f"the arms ran with different profiles or commits: {ran}; run `omnihuman ablate run {name}` again"
        )
    _save(root / RESULTS / f"{name}.json", name, results)
    return "\n".join(_report_lines(name, results))


def _result(root: Path, name: str, arm: str) -> ArmResult:
    return ArmResult.load(root / RESULTS / name / f"{arm}.json")


def _matching(results: Sequence[ArmResult], arm: Arm, name: str) -> ArmResult:
    """The result of an arm as it is configured now."""
    for result in results:
        if result.arm == arm and not result.exit_code:
            return result
    raise UserError(f"arm {arm.name} of {name} has not run to its end as configured; run `omnihuman ablate run {name}`")


def _save(path: Path, name: str, results: Sequence[ArmResult]) -> None:
    with publish(path) as temporary:
        tree = {"ablation": name, "arms": [asdict(result) for result in results]}
        temporary.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _report_lines(name: str, results: Sequence[ArmResult]) -> list[str]:
    flat = [_estimates(result.figures) for result in results]
    labels = list(dict.fromkeys(label for figures in flat for label in figures))
    rows = [[label, *(figures.get(label, "-") for figures in flat)] for label in labels]
    rows += [["steps that ran", *(str(sum(step.outcome == "ran" for step in result.steps)) for result in results)]]
    rows += [["seconds", *(f"{sum(step.seconds for step in result.steps):.0f}" for result in results)]]
    head = f"{name}: profile {results[0].profile}, commit {results[0].commit[:12]}"
    return [head, "", *_table([["figure", *(result.arm.name for result in results)], *rows])]


def _estimates(tree: Any, name: str = "") -> dict[str, str]:
    """Every figure with an interval below `tree` as text, by its dotted name, and every plain number."""
    if isinstance(tree, dict) and {"value", "low", "high"} <= tree.keys():
        if tree["value"] is None:
            return {name: "not measured"}
        return {name: f"{tree['value']:.3f} [{tree['low']:.3f}, {tree['high']:.3f}]"}
    if isinstance(tree, dict):
        parts = [_estimates(value, f"{name}.{key}".lstrip(".")) for key, value in tree.items()]
        return {label: text for part in parts for label, text in part.items()}
    return {name: f"{tree:g}"} if isinstance(tree, (int, float)) else {}


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
