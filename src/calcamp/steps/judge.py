"""Join the tables over CCDs, link the products, apply the limits, write verdict.json.

It reads only records, tables and the plan file: a new limit re-judges in seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from calcamp.data.files import link_or_copy, read_json, write_json
from calcamp.detector.geometry import CCDS
from calcamp.steps import orphan


def records_of(folder: Path, judging: dict) -> list[dict]:
    """Records of the planned sub-tasks, with the folder each describes under ``folder``."""
    found = []
    for subtask in judging["subtasks"]:
        for place in ("block", *(f"ccd{ccd}" for ccd in CCDS)):
            path = folder / place / subtask / f"{subtask}.json"
            if path.is_file():
                found.append({**read_json(path), "folder": path.parent})
    return found


class Tables(Mapping):
    """subject -> rows of the joined tables, read when they are asked for: profiles and lists are not judged."""

    def __init__(self, paths: dict[str, Path]):
        self.paths, self._rows = paths, {}

    def __getitem__(self, subject: str) -> list[dict]:
        from calcamp.data.tables import table_rows

        if subject not in self._rows:
            self._rows[subject] = table_rows(self.paths[subject])
        return self._rows[subject]

    def __iter__(self):
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def join(folder: Path, records: list[dict]) -> Tables:
    """Write ``tables/<subject>.ecsv`` joined over CCDs."""
    from calcamp.data.tables import join_tables

    parts: dict[str, list[Path]] = {}
    for record in records:
        for table in record.get("tables", []):
            parts.setdefault(table["subject"], []).append(record["folder"] / table["file"])
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    for old in tables.glob("*.ecsv"):
        if old.stem not in parts:
            old.unlink()
    joined = {subject: tables / f"{subject}.ecsv" for subject in parts}
    for subject, paths in parts.items():
        join_tables(paths, joined[subject])
    return Tables(joined)


def link_products(folder: Path, records: list[dict]) -> list[dict]:
    """Make ``products/`` show the products of all sub-tasks; no bytes are copied on one disk."""
    products = folder / "products"
    products.mkdir(exist_ok=True)
    wanted, listed = set(), []
    for record in records:
        for product in record.get("products", []):
            source = record["folder"] / product["file"]
            target = products / source.name
            link_or_copy(source, target)
            wanted.add(target.name)
            listed.append(
                {**product, "file": f"products/{target.name}", "sha256": record["files"].get(product["file"])}
            )
    for old in products.iterdir():
        if old.name not in wanted:
            old.unlink()
    return listed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.judge", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--plan", required=True, type=Path, help="plan file of the test (config/plan/<TEST>.json)"
    )
    parser.add_argument("--folder", required=True, type=Path, help="results folder of the test")
    args = parser.parse_args(argv)
    if argv is None:
        orphan.end_with_the_workflow()
    from calcamp.quality.judge import judge

    judging = read_json(args.plan)["judging"]
    manifest = read_json(args.folder / "manifest.json")
    records = records_of(args.folder, judging)
    tables = join(args.folder, records)
    products = link_products(args.folder, records)
    verdict = judge(judging, manifest, tables, records, products)
    write_json(args.folder / "verdict.json", verdict)
    print(
        f"{verdict['test']}: {verdict['verdict']}; flags: {', '.join(f['name'] for f in verdict['flags']) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
