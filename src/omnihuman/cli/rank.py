"""One rank of a stage with its probe: `python -m omnihuman.cli.rank`, see `omnihuman.training.rank`."""

import sys

from omnihuman.cli.probes import held_out_probe
from omnihuman.training.rank import main

if __name__ == "__main__":
    sys.exit(main(make_probe=held_out_probe))
