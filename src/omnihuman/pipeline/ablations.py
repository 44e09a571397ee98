"""What an ablation is: arms, seeds and claims, as a file of conf/ablation says before anything runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omnihuman.config.compose import CONF, compose
from omnihuman.config.load import read_yaml
from omnihuman.config.strict import instantiate, unknown_key, validate
from omnihuman.errors import UserError
from omnihuman.pipeline.claims import CHANGES, Claim
from omnihuman.storage.work import content_key

_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Arm:
    """One setting of an ablation."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: a run."""

    arm: Arm
    seed: int

    @property
    def label(self) -> str:
        """Names it for people, in runs and messages."""
        return f"{self.arm.name} seed {self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """Those of the arm, and the seed."""
        return (*self.arm.overrides, f"training.seed={self.seed}")


@dataclass(frozen=True)
class Ablation:
    """A file of conf/ablation."""

    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    reference: str
    claims: Mapping[str, Claim] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every arm with every seed; all arms of one seed before the next seed, so that comparisons come early."""
        return tuple(Trial(arm, seed) for seed in self.seeds for arm in self.arms)

    @property
    def claims_key(self) -> str:
        """Hash of the claims, by which a report knows whether they were changed after the runs."""
        claims = {name: asdict(claim) for name, claim in self.claims.items()}
        return content_key(reference=self.reference, claims=claims)


@dataclass(frozen=True)
class _File:
    """The keys of the file."""

    arms: dict[str, Any]
    reference: str
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()
    claims: dict[str, Claim] = field(default_factory=dict)


def load_ablation(name: str, profile: str, conf: Path = CONF) -> Ablation:
    """The ablation of conf/ablation/NAME.yaml, each of whose arms composes with the profile.

    Raises:
        UserError: no such file, a key, type or arm that is not known, an arm that does not compose, or one that differs
            in nothing from another.
    """
    folder = conf / "ablation"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"unknown ablation {name!r}, one of {', '.join(known) or 'none'}; add {folder / name}.yaml")
    where = f"conf/ablation/{name}.yaml"
    tree = read_yaml(folder / f"{name}.yaml")
    for line in _wrong_keys(tree, where):
        raise line
    entries = tree["arms"]
    if not isinstance(entries, dict) or len(entries) < 2:
        raise UserError(f"{where}: arms is {entries!r}, expected at least two lines `name: [key=value, ...]`")
    validate({key: value for key, value in tree.items() if key != "arms"}, where, _File)
    file = instantiate(_File, tree, where)
    arms = tuple(_arm(str(arm), overrides, file.common, where) for arm, overrides in entries.items())
    ablation = Ablation(name, arms, file.seeds, file.reference, file.claims)
    for line in _broken_rules(ablation):
        raise UserError(f"{where}: {line}")
    _check_composes(ablation, profile, conf, where)
    return ablation


def _wrong_keys(tree: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """Keys that are not known or are missing, at the top and in each claim."""
    claims = tree.get("claims") or {}
    parts: list[tuple[str, Any, Any]] = [("", tree, _File)]
    parts += [(f"claims.{name}.", claim, Claim) for name, claim in claims.items()] if isinstance(claims, dict) else []
    for prefix, part, schema in parts:
        if not isinstance(part, Mapping):
            yield UserError(f"{where}: {prefix.rstrip('.')} is {part!r}, expected a section of `key: value` lines")
            return
        names = [key.name for key in fields(schema)]
        for key in part.keys() - set(names):
            yield unknown_key(f"{prefix}{key}", where, [f"{prefix}{known}" for known in names])
        needed = [key.name for key in fields(schema) if key.default is MISSING and key.default_factory is MISSING]
        for key in needed:
            if key not in part:
                yield UserError(f"{where}: {prefix}{key} is missing")


def _arm(name: str, overrides: Any, common: tuple[str, ...], where: str) -> Arm:
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: an arm is called {name!r}; use small letters, digits and _")
    if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
        raise UserError(f"{where}: arms.{name} is {overrides!r}, expected a list of key=value")
    return Arm(name, (*common, *overrides))


def _broken_rules(ablation: Ablation) -> Iterator[str]:
    names = [arm.name for arm in ablation.arms]
    known = f"one of {', '.join(names)}"
    if ablation.reference not in names:
        yield f"reference is {ablation.reference!r}: no such arm, {known}"
    if not ablation.seeds or len(set(ablation.seeds)) < len(ablation.seeds):
        yield f"seeds is {list(ablation.seeds)}: name at least one, each once"
    if min(ablation.seeds) < 0:
        yield f"seeds is {list(ablation.seeds)}: a seed is 0 or above"
    for name, claim in ablation.claims.items():
        where = f"claims.{name}"
        if claim.arm not in names:
            yield f"{where}.arm is {claim.arm!r}: no such arm, {known}"
        if claim.against and claim.against not in names:
            yield f"{where}.against is {claim.against!r}: no such arm, {known}"
        if claim.arm == (claim.against or ablation.reference):
            yield f"{where}: {claim.arm} is held against itself; name another arm in {where}.against"
        if claim.change not in CHANGES:
            yield f"{where}.change is {claim.change!r}, expected one of {', '.join(CHANGES)}"
        if claim.margin < 0:
            yield f"{where}.margin is {claim.margin}: how much counts is not negative; the direction is {where}.change"
        if not claim.margin and claim.change.startswith("not_"):
            yield f"{where}.margin is 0: say above it how much worse still counts as equal"


def _check_composes(ablation: Ablation, profile: str, conf: Path, where: str) -> None:
    seen: dict[str, str] = {}
    for arm in ablation.arms:
        if seeds := [override for override in arm.overrides if override.startswith("training.seed=")]:
            raise UserError(f"{where}: arms.{arm.name} sets {seeds[0]}; the seeds of all arms stand in `seeds`")
        try:
            params = asdict(compose(profile, arm.overrides, conf))
        except UserError as error:
            raise UserError(f"{where}: arms.{arm.name}: {error}") from error
        setting = content_key(**{key: value for key, value in params.items() if key != "overrides"})
        if setting in seen:
            raise UserError(f"{where}: arms.{arm.name} is the same setting as arms.{seen[setting]}; remove one")
        seen[setting] = arm.name
