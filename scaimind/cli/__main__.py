"""`python -m scaimind.cli` is `scaimind`."""

import sys

from scaimind.cli.main import main

sys.exit(main())
