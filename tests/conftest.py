"""Its place here puts ``tests/`` on the import path, so that rooms can import `support`.

One thread of linear algebra per process, as Snakemake gives its jobs: matrices here are small, and threads that wait
for each other cost more than they bring.

Property tests draw the same examples each time in ``make test``, so that a pass stays a pass; ``make test-full`` runs
them again with new ones (``--hypothesis-profile explore``). Neither looks at the clock: a slow machine fails no test.
"""

import os

from hypothesis import HealthCheck, settings

# a temporary folder shared by the examples of a test is meant: each example writes its own files
_UNTIMED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("repeatable", derandomize=True, **_UNTIMED)
settings.register_profile("explore", derandomize=False, print_blob=True, **_UNTIMED)
settings.load_profile("repeatable")

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
