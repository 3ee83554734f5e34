"""``python -m rnnfast``: the same as the command ``rnnfast``."""

import sys

from rnnfast.cli import main

sys.exit(main())
