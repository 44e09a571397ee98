"""runs/<step>.json: the way from a step's outputs to its MLflow run, also when DVC brought them back from its cache."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.storage.files import publish

RUNS = Path("runs")


@dataclass(frozen=True)
class RunRecord:
    """Which MLflow run made a step's outputs. An output of the step on which nothing depends."""

    step: str
    run_id: str
    experiment_id: str
    parent_run_id: str
    """Empty where the step ran on its own."""
    sha256: str
    """Of the weights that the step made or, for `evaluate`, measured."""
    finished: str
    """UTC, ISO 8601."""

    def save(self, path: Path) -> None:
        """Publishes the record as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing or holds something else.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing: run `dvc repro`, which makes or restores it") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not the record of a run ({error}): remove it and run `dvc repro`") from error


def record_path(step: str, root: Path = Path()) -> Path:
    """Where the record of a stage, or of `evaluate`, lies in a checkout."""
    return root / RUNS / f"{step}.json"
