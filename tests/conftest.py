"""Before torch is imported: one thread for each process.

Tests are small, and threads that wait for one another slow them by far on a machine that is shared.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
