"""What the runs of an ablation came to, side by side: values with intervals, and a verdict for each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnihuman.config.compose import CONF
from omnihuman.errors import UserError
from omnihuman.nested import leaves
from omnihuman.pipeline.ablations import Ablation, Trial, load_ablation
from omnihuman.pipeline.arms import KEPT, RESULT, RESULTS, TrialResult, Work
from omnihuman.pipeline.claims import Verdict, judge
from omnihuman.pipeline.paired import COLUMNS, MIN_PEOPLE, MIN_SEEDS, crossed_interval

ITEMS = Path(KEPT) / "items.csv"
"""In the folder of a run: item, person, metric and value of each video, as the evaluation left it; the name of the
metric begins with what drives the video, as in `sound/motion`."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Value:
    """One metric of one arm: its mean, and an interval where seeds and people are enough for one."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.low is None else f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says."""

    ablation: Ablation
    results: tuple[TrialResult, ...]
    metrics: dict[str, dict[str, Value]]
    """By metric and arm, over seeds and people."""
    figures: dict[str, dict[str, Value]]
    """By figure of the evaluation and arm: mean over seeds, from the lowest to the highest seed."""
    verdicts: tuple[Verdict, ...]
    claims_changed: bool
    """Whether the claims now are others than when some run began."""

    @property
    def profile(self) -> str:
        """Of all runs."""
        return self.results[0].profile

    @property
    def commit(self) -> str:
        """Of all runs."""
        return self.results[0].commit

    def tree(self) -> dict[str, Any]:
        """The comparison as JSON takes it."""
        return {
            "ablation": self.ablation.name,
            "profile": self.profile,
            "commit": self.commit,
            "reference": self.ablation.reference,
            "claims_key": self.ablation.claims_key,
            "claims_changed": self.claims_changed,
            "confidence": CONFIDENCE,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "metrics": {name: {arm: asdict(value) for arm, value in row.items()} for name, row in self.metrics.items()},
            "runs": [asdict(result) for result in self.results],
        }


def compare(root: Path, name: str) -> Comparison:
    """Reads the results of all runs and judges the claims.

    Raises:
        UserError: a run has not come to its end as configured, or the runs have different code or profiles.
    """
    found = [TrialResult.load(path) for path in sorted((root / RESULTS / name).glob(f"*/seed-*/{RESULT}"))]
    if not found:
        raise UserError(f"no arm of {name} has run here; run `omnihuman ablate run {name}`")
    ablation = load_ablation(name, found[0].profile, root / CONF)
    results = _matching(found, ablation)
    work = Work(root, results[0].commit, ablation, results[0].profile)
    table = items_table(work)
    return Comparison(
        ablation=ablation,
        results=results,
        metrics=_metrics(table, ablation),
        figures=_figures(results, ablation),
        verdicts=tuple(
            judge(key, claim, ablation.reference, table, CONFIDENCE) for key, claim in ablation.claims.items()
        ),
        claims_changed=any(result.claims != ablation.claims_key for result in results),
    )


def items_table(work: Work) -> pd.DataFrame:
    """The items of all runs, with `paired.COLUMNS`.

    Raises:
        UserError: a table lacks a column.
    """
    tables = [pd.DataFrame(columns=list(COLUMNS))]
    for trial in work.ablation.trials:
        path = work.folder(trial) / ITEMS
        if path.is_file():
            table = pd.read_csv(path, dtype={"item": str, "person": str, "metric": str}).assign(
                arm=trial.arm.name, seed=trial.seed
            )
            if missing := [column for column in COLUMNS if column not in table]:
                raise UserError(f"{path} has no column {', '.join(missing)}; evaluate the run again")
            tables.append(table[list(COLUMNS)])
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _matching(found: Sequence[TrialResult], ablation: Ablation) -> tuple[TrialResult, ...]:
    """The results of all trials as they are configured now."""
    finished: Mapping[Trial, TrialResult] = {result.trial: result for result in found if not result.exit_code}
    missing = [trial.label for trial in ablation.trials if trial not in finished]
    if missing:
        some = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise UserError(
            f"{len(missing)} of {len(ablation.trials)} runs of {ablation.name} have not come to their end as configured"
            f" ({some}); run `omnihuman ablate run {ablation.name}`"
        )
    results = tuple(finished[trial] for trial in ablation.trials)
    if len({(result.profile, result.commit) for result in results}) > 1:
        ran = ", ".join(f"{result.trial.label} ({result.profile}, {result.commit[:8]})" for result in results)
        raise UserError(
            f"the arms ran with different profiles or commits: {ran}; run `omnihuman ablate run {ablation.name}` again"
        )
    return results


def _metrics(table: pd.DataFrame, ablation: Ablation) -> dict[str, dict[str, Value]]:
    rows: dict[str, dict[str, Value]] = {}
    for metric, part in table.groupby("metric", sort=True):
        for arm in ablation.arms:
            of_arm = part[part["arm"] == arm.name]
            by_person = of_arm.groupby(["seed", "person"])["value"].mean().unstack("person").dropna(axis=1)
            if by_person.size:
                rows.setdefault(str(metric), {})[arm.name] = _value(by_person.to_numpy(float))
    return rows


def _value(by_person: np.ndarray) -> Value:
    """Of a table [seeds, people]."""
    if by_person.shape[0] < MIN_SEEDS or by_person.shape[1] < MIN_PEOPLE:
        return Value(float(by_person.mean()))
    return Value(*crossed_interval(by_person, CONFIDENCE))


def _figures(results: Sequence[TrialResult], ablation: Ablation) -> dict[str, dict[str, Value]]:
    rows: dict[str, dict[str, Value]] = {}
    for arm in ablation.arms:
        flat = [dict(_values(result.figures)) for result in results if result.trial.arm == arm]
        for label in flat[0]:
            values = [figures[label] for figures in flat if label in figures]
            several = len(values) > 1
            low, high = (min(values), max(values)) if several else (None, None)
            rows.setdefault(label, {})[arm.name] = Value(float(np.mean(values)), low, high)
    return rows


def _values(tree: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Every figure below `tree` by its dotted name; of one with an interval its value."""
    named = ((key.removesuffix(".value"), value) for key, value in leaves(tree))
    about = ("low", "high", "num_clips", "num_people", "confidence")
    return [
        (key, float(value))
        for key, value in named
        if isinstance(value, int | float) and key.rpartition(".")[2] not in about
    ]
