"""What the rules run: one process per sub-task, test and CCD."""

import os

# Frames are made and given back in large pieces: looking for huge pages costs more time than they save.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
