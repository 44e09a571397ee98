"""Where a stage is computed, and who watches."""

from dataclasses import dataclass
from pathlib import Path

from omnihuman.config.schema.compute import Compute
from omnihuman.training.probes import Probe
from omnihuman.training.progress import Report
from omnihuman.training.ranks import Ranks


@dataclass(frozen=True)
class Place:
    """Where a stage is computed, which changes no weight but by rounding."""

    encoded: Path
    work: Path
    compute: Compute
    ranks: Ranks
    report: Report | None = None
    probe: Probe | None = None
