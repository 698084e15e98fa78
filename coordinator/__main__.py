"""`python -m coordinator`."""

import gc
import sys

gc.disable()  # until it serves: nothing of what is made before is garbage

from coordinator.main import main  # noqa: E402

sys.exit(main())
