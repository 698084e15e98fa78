"""`python -m coordinator`."""

import gc
import sys

gc.disable()  # nothing that is made while modules are loaded is garbage
from coordinator.main import main  # noqa: E402

gc.enable()
sys.exit(main())
