"""What a release came to, for flows and summaries: registration, gate and promotion in one answer."""

from dataclasses import dataclass
from pathlib import Path

from omnihuman.errors import UserError


@dataclass(frozen=True)
class Candidate:
    """A registered version that asks to become champion."""

    name: str
    version: int
    sha256: str
    folder: Path
    """A checked copy with model.safetensors and model.json."""


@dataclass(frozen=True)
class Release:
    """The gate's answer, or why there was nothing to hold against it."""

    candidate: Candidate | None
    """None where the model could not be registered."""
    champion: bool
    said: str
    """One sentence; after a refusal the rules that failed, a line each."""


class NotPromoted(UserError):
    """Something other than the gate kept a registered version from becoming champion."""

    def __init__(self, candidate: Candidate, reason: UserError) -> None:
        self.candidate = candidate
        super().__init__(str(reason))


def register_checkout(root: Path) -> Candidate:
    """Registers the trained model of a checkout; equal weights and figures keep their version.

    Raises:
        UserError: as `omnihuman.registry.register.register`.
    """
    from omnihuman.registry.register import register

    version = register(root)
    return Candidate(version.name, version.version, version.sha256, version.folder)


def promote_candidate(candidate: Candidate, override: str = "") -> Release:
    """Makes the candidate champion, or says why not: a model that fails its gate is no error.

    Raises:
        NotPromoted: where `omnihuman.registry.aliases.promote` has an error of the user's other than the gate.
    """
    from omnihuman.config.load import load_params
    from omnihuman.registry.aliases import GateRefused, promote

    try:
        done = promote(str(candidate.version), load_params().gate, override=override)
    except GateRefused as refused:
        failed = [str(rule) for rule in refused.report.rules if not rule.passed]
        return Release(candidate, False, "not promoted, the gate refused it\n" + "\n".join(failed))
    except UserError as error:
        raise NotPromoted(candidate, error) from error
    return Release(candidate, True, "is the champion" if done.moved else "is the champion already")
