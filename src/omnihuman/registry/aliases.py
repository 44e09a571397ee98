"""Who is champion: promote, roll back, delete, and the list of versions.

The move of the alias is the one moment at which a promotion takes effect. What it changes around that moment is written
down before, as the registered model's tag `intent`, and settled by the next promotion or rollback after a kill.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.config.schema.registry import Gate
from omnihuman.errors import UserError
from omnihuman.registry.gate import GateReport, check
from omnihuman.registry.register import headline
from omnihuman.registry.remeasure import figures_on, recorded_figures
from omnihuman.registry.smoke import smoke_test
from omnihuman.registry.store import CHAMPION, MODEL_NAME, aliases, connect, exclusive, find, registered_model
from omnihuman.registry.versions import as_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_INTENT = "intent"
_HISTORY = "champions"
_LONGEST_HISTORY = 100
_DEFAULT_GATE = Gate()


class GateRefused(UserError):
    """The gate did not pass; `report` holds every rule."""

    def __init__(self, version: int, report: GateReport) -> None:
        self.report = report
        lines = "\n".join(f"  {line}" for line in report.lines())
        super().__init__(
            f"version {version} may not become champion:\n{lines}\n"
            "train a better one, or promote it with --override REASON, which is recorded"
        )


@dataclass(frozen=True)
class Promotion:
    """What a promotion did."""

    version: int
    previous: int | None
    """The champion before; None for the first."""
    report: GateReport
    moved: bool
    """False where the version was champion already."""


@dataclass(frozen=True)
class Intent:
    """A move of the alias champion, complete enough to be finished by another process."""

    before: int | None
    after: int
    champions: list[int]
    """All champions in order once the move is done; rollback goes back along them."""
    tags: dict[str, str] = field(default_factory=dict)
    """For the new champion's version."""


@dataclass(frozen=True)
class VersionRow:
    """One line of the list."""

    version: int
    aliases: tuple[str, ...]
    run_id: str
    figures: dict[str, str]
    created: datetime


def promote(
    reference: str,
    gate: Gate = _DEFAULT_GATE,
    root: Path = Path(),
    *,
    override: str = "",
    smoke: Callable[[int], None] = smoke_test,
) -> Promotion:
    """Makes a version champion: gate, smoke test in a clean process, then the alias.

    Args:
        reference: an alias or a number.
        gate: floors and margins.
        root: a checkout; where the champion was measured on other data than the version, it is measured again on the
            encoded clips that lie there, if they are the version's.
        override: why a failed gate does not matter this time; recorded as a tag.
        smoke: raises UserError where a version does not load and render.

    Raises:
        GateRefused: a rule failed and there is no override.
        UserError: no such version, it does not render, another promotion is under way, or the champion changed while
            this one was checked.
    """
    with exclusive("promote"):
        client = connect()
        _settle(client)
        candidate = as_version(client, find(client, reference))
        champion = aliases(client).get(CHAMPION)
        figures = recorded_figures(client, candidate.version)
        rival = None
        if champion not in (None, candidate.version):
            rival = figures_on(client, champion, figures.evaluation_set, root)
        report = check(figures, rival, gate)
        if champion == candidate.version:
            return Promotion(candidate.version, champion, report, moved=False)
        if not report.passed and not override:
            raise GateRefused(candidate.version, report)
        smoke(candidate.version)
        champions = [*_earlier(client, champion), *([] if champion is None else [champion]), candidate.version]
        tags = {"gate": json.dumps([asdict(rule) for rule in report.rules]), "promoted": _now()}
        tags |= {"override": override} if not report.passed else {}
        tags |= {"previous_champion": str(champion)} if champion else {}
        _move(client, Intent(champion, candidate.version, champions, tags))
        return Promotion(candidate.version, champion, report, moved=True)


def rollback() -> tuple[int, int]:
    """Makes the previous champion champion again; returns the version that stepped down and the one restored.

    Raises:
        UserError: there is no champion, none before it, its files are damaged, or a promotion is under way.
    """
    with exclusive("promote"):
        client = connect()
        _settle(client)
        champion = int(find(client, CHAMPION).version)
        earlier = _earlier(client, champion)
        if not earlier:
            raise UserError(f"version {champion} is the first champion of {MODEL_NAME}: there is none to go back to")
        restored = as_version(client, find(client, str(earlier[-1]))).version
        _move(client, Intent(champion, restored, earlier, {"restored": _now()}))
        return champion, restored


def delete(reference: str) -> int:
    """Deletes a version and returns its number; never the champion, nor the one that `rollback` would restore.

    Raises:
        UserError: no such version, or it is needed.
    """
    with exclusive("promote"):
        client = connect()
        _settle(client)
        version = int(find(client, reference).version)
        champion = aliases(client).get(CHAMPION)
        if version == champion:
            raise UserError(f"version {version} is the champion: promote another or roll back first")
        earlier = _earlier(client, champion)
        if version in earlier[-1:]:
            raise UserError(f"version {version} is what `omnihuman registry rollback` would restore: it stays")
        if version in earlier:
            kept = [*(number for number in earlier if number != version), champion]
            client.set_registered_model_tag(MODEL_NAME, _HISTORY, json.dumps(kept))
        client.delete_model_version(MODEL_NAME, str(version))
        return version


def versions() -> list[VersionRow]:
    """All versions, the newest first."""
    client = connect()
    known = aliases(client)
    rows = [
        VersionRow(
            version=int(found.version),
            aliases=tuple(sorted(alias for alias, number in known.items() if number == int(found.version))),
            run_id=found.run_id or "",
            figures=headline(json.loads(found.tags.get("evaluation", "{}"))),
            created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        )
        for found in client.search_model_versions(f"name='{MODEL_NAME}'")
    ]
    return sorted(rows, key=lambda row: -row.version)


def _move(client: "MlflowClient", intent: Intent) -> None:
    client.set_registered_model_tag(MODEL_NAME, _INTENT, json.dumps(asdict(intent)))
    champion = aliases(client).get(CHAMPION)
    if champion != intent.before:  # another machine, or a person on MLflow's page
        client.delete_registered_model_tag(MODEL_NAME, _INTENT)
        raise UserError(
            f"the champion changed from {intent.before} to {champion} while version {intent.after} was checked;"
            " nothing was changed, try again"
        )
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, str(intent.after))
    _finish(client, intent)


def _finish(client: "MlflowClient", intent: Intent) -> None:
    for key, value in intent.tags.items():
        client.set_model_version_tag(MODEL_NAME, str(intent.after), key, value)
    client.set_registered_model_tag(MODEL_NAME, _HISTORY, json.dumps(intent.champions[-_LONGEST_HISTORY:]))
    client.delete_registered_model_tag(MODEL_NAME, _INTENT)


def _settle(client: "MlflowClient") -> None:
    """Finishes or forgets the move that a killed process left behind."""
    model = registered_model(client)
    if model is None or _INTENT not in model.tags:
        return
    intent = Intent(**json.loads(model.tags[_INTENT]))
    if aliases(client).get(CHAMPION) == intent.after:
        log.warning("the interrupted move of champion to version %d is completed", intent.after)
        _finish(client, intent)
    else:
        log.warning("the interrupted move of champion to version %d had not happened and is forgotten", intent.after)
        client.delete_registered_model_tag(MODEL_NAME, _INTENT)


def _earlier(client: "MlflowClient", champion: int | None) -> list[int]:
    """Champions before the present one, the latest last."""
    model = registered_model(client)
    champions = json.loads(model.tags.get(_HISTORY, "[]")) if model else []
    while champions and champions[-1] == champion:
        champions = champions[:-1]
    return champions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
