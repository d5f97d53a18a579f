"""Its place here puts ``tests/`` on the import path, so that rooms can import `support`.

One thread of linear algebra per process, as Snakemake gives its jobs: matrices here are small, and threads that wait
for each other cost more than they bring.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
