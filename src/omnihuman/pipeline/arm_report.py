"""What an ablation will run, and what its arms came to, as tables for a terminal."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnihuman.config.compose import CONF, compose
from omnihuman.pipeline.ablation_page import describe_claims, describe_difference, render_page
from omnihuman.pipeline.ablations import load_ablation
from omnihuman.pipeline.arms import RESULTS, TrialResult
from omnihuman.pipeline.comparison import Comparison, compare
from omnihuman.pipeline.graph import StepNode, nodes
from omnihuman.storage.files import publish
from omnihuman.storage.work import content_key


def plan(root: Path, name: str, profile: str) -> str:
    """Lines of text: arms with their overrides, claims, and for each step which arms run it and which share it.

    Raises:
        UserError: as `load_ablation`.
    """
    ablation = load_ablation(name, profile, root / CONF)
    arms, graph, settings = ablation.arms, nodes(root), {}
    for trial in ablation.trials:
        settings[trial.label] = asdict(compose(profile, trial.overrides, root / CONF))
    firsts = first_to_run(graph, settings)
    first_seed = {trial.arm.name: trial.label for trial in ablation.trials if trial.seed == ablation.seeds[0]}
    arm_of = {label: arm for arm, label in first_seed.items()}
    rows = [
        [step, *("runs" if firsts[label][step] == label else f"as {arm_of[firsts[label][step]]}" for label in arm_of)]
        for step in graph
    ]
    runs = sum(first == label for label, steps in firsts.items() for first in steps.values())
    lines = [
        f"{name}: {len(arms)} arms of profile {profile}, seeds {', '.join(map(str, ablation.seeds))}",
        *(f"  {arm.name}: {' '.join(arm.overrides)}" for arm in arms),
        *(f"  claim {key}: {claim.says}" for key, claim in ablation.claims.items()),
    ]
    table = _table([[f"step, seed {ablation.seeds[0]}", *(arm.name for arm in arms)], *rows])
    total = f"{runs} steps to run instead of {len(graph) * len(settings)}; fewer where the cache holds them already"
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
    """Lines of text that compare the arms; the same goes to reports/ablation/NAME.json and, with pictures, NAME.html.

    Raises:
        UserError: as `compare`.
    """
    comparison = compare(root, name)
    place = root / RESULTS / name
    with publish(place.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(comparison.tree(), indent=2) + "\n", encoding="utf-8")
    with publish(place.with_suffix(".html")) as temporary:
        temporary.write_text(render_page(comparison, place), encoding="utf-8")
    return "\n".join([*_report_lines(comparison), "", f"page: {place.with_suffix('.html')}"])


def _report_lines(comparison: Comparison) -> list[str]:
    ablation = comparison.ablation
    arms, seeds = [arm.name for arm in ablation.arms], len(ablation.seeds)
    lines = [
        f"{ablation.name}: profile {comparison.profile}, commit {comparison.commit[:12]}, {seeds} seed(s)",
        *(_claim_lines(comparison) if comparison.verdicts else []),
    ]
    for what, rows in (
        ("metric, mean and 95% interval over seeds and people", comparison.metrics),
        ("figure, mean, lowest and highest seed", comparison.figures),
    ):
        if rows:
            body = [[label, *(str(row.get(arm, "-")) for arm in arms)] for label, row in rows.items()]
            lines += ["", *_table([[what, *arms], *body])]
    ran = [[sum(step.outcome == "ran" for step in r.steps) for r in _of(comparison, arm)] for arm in arms]
    took = [[sum(step.seconds for step in r.steps) for r in _of(comparison, arm)] for arm in arms]
    costs = [["steps that ran", *(str(sum(part)) for part in ran)], ["seconds", *(f"{sum(part):.0f}" for part in took)]]
    return [*lines, "", *_table([["all runs", *arms], *costs])]


def _of(comparison: Comparison, arm: str) -> list[TrialResult]:
    return [result for result in comparison.results if result.trial.arm.name == arm]


def _claim_lines(comparison: Comparison) -> Iterator[str]:
    yield ""
    yield describe_claims(comparison)
    for verdict in comparison.verdicts:
        yield f"  {verdict.outcome:<13} {verdict.claim.says}"
        yield f"  {'':<13} {describe_difference(verdict, comparison.ablation.reference)}"


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
