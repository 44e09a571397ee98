"""One rank of a job, with the probe that training is handed from above; arguments as of `omnihuman.training.rank`."""

import sys

from omnihuman.cli.probes import held_out_probe
from omnihuman.training.rank import main

if __name__ == "__main__":
    sys.exit(main(make_probe=held_out_probe))
