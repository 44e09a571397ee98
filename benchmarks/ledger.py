"""The ledger of batches: claims a second, and planning of many jobs, in a file and in PostgreSQL.

`OMNIHUMAN_LEDGER=postgresql+psycopg://... python benchmarks/ledger.py` measures a server, without it a file.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from omnihuman.rendering.ledger import Ledger
from omnihuman.rendering.ledger_store import PLACE


def claims_a_second(ledger: Ledger, count: int) -> float:
    """One worker claims and finishes items as fast as it can."""
    started = time.perf_counter()
    for _ in range(count):
        lease = ledger.claim("m", "one", 60, 3)
        assert lease and ledger.done(lease, 1.0, 10)
    return count / (time.perf_counter() - started)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--claims", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    kind = "PostgreSQL" if os.environ.get(PLACE) else "SQLite"
    with tempfile.TemporaryDirectory() as name:
        ledger = Ledger(Path(name))
        keys = [f"{number:064d}" for number in range(given.jobs)]
        for verb in ("planned", "planned again"):
            started = time.perf_counter()
            ledger.plan("m", keys, [])
            print(f"{kind}: {given.jobs} jobs {verb} in {time.perf_counter() - started:.1f} s")
        found = [claims_a_second(ledger, given.claims) for _ in range(given.repetitions)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind}: {statistics.median(found):.0f} items claimed and done a second ({min(found):.0f} to {max(found):.0f})"
    )
    print(f"peak of this process {peak:.2f} GiB, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
