"""What a cluster is asked for, beside what a finished session used: memory and time of each sub-task.

``python -m benchmarks.resources SESSION.yaml`` in the folder of a session of full-size frames; exit 1 where a
sub-task used more than its rule asks for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SNAKEMAKE_MB = 300  # two of 134 MB: Slurm starts each job in a Snakemake, which starts another for its steps


def rows(session: Path) -> list[dict]:
    """One row per test and sub-task: asked for and used, the largest of the CCDs."""
    from calcamp.campaign import plan

    planned, found = plan.load([session], {}), []
    for name in planned.tests:
        records: dict[str, list[dict]] = {}
        for path in map(Path, planned.records(name)):
            if path.is_file() and (record := json.loads(path.read_text())).get("peak_mb"):
                records.setdefault(record["subtask"], []).append(record)
        for subtask, of_ccds in records.items():
            found.append(
                {
                    "test": name,
                    "subtask": subtask,
                    "asked_mb": planned.resource(name, subtask, "mem_mb"),
                    "used_mb": max(r["peak_mb"] for r in of_ccds) + SNAKEMAKE_MB,
                    "asked_min": planned.resource(name, subtask, "runtime_min"),
                    "used_min": max(r["minutes"] for r in of_ccds),
                }
            )
    return found


def table(found: list[dict]) -> list[str]:
    return [
        f"| sub-task | asked MB | used MB, {SNAKEMAKE_MB} of Snakemake included | asked min | used min |",
        "|---|---|---|---|---|",
        *(
            f"| {r['test']} {r['subtask']} | {r['asked_mb']} | {r['used_mb']:.0f} | {r['asked_min']} | {r['used_min']:.2f} |"
            for r in found
        ),
    ]


def exceeded(found: list[dict]) -> list[dict]:
    """Rows where more was used than asked for."""
    return [r for r in found if r["used_mb"] > r["asked_mb"] or r["used_min"] > r["asked_min"]]


if __name__ == "__main__":
    used = [row for session in sys.argv[1:] for row in rows(Path(session))]
    print("\n".join(table(used)))
    sys.exit(bool(exceeded(used)))
