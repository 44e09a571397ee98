"""One rank of a stage with its probe: `python -m omnihuman.cli.rank`, see `omnihuman.training.rank`."""

import sys

if __name__ == "__main__":  # a loader worker, which needs none of this, imports the file again
    from omnihuman.cli.probes import held_out_probe
    from omnihuman.training.rank import main

    sys.exit(main(make_probe=held_out_probe))
