"""`python -m omnihuman.cli`, the same as `omnihuman`."""

import sys

from omnihuman.cli import main

sys.exit(main())
