"""Where things are: the one module that builds paths of the workflow and of the results tree."""

from __future__ import annotations

from pathlib import Path


def workflow_root() -> Path:
    """Folder that holds Snakefile, rules/, config/ and profiles/: the checkout, or inside the wheel."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1]
    if (checkout / "Snakefile").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout
    return here / "workflow"


def packaged_config() -> Path:
    """The configuration that comes with calcamp: blocks/ chambers/ detectors/ limits/ schema/."""
    return workflow_root() / "config"


class Results:
    """Paths inside the results of one session, ``<results>/<session>/``."""

    def __init__(self, results: Path | str, session: str):
        self.root = Path(results) / session

    def test(self, test: str) -> Path:
        return self.root / test

    def manifest(self, test: str) -> Path:
        return self.test(test) / "manifest.json"

    def subtask_folder(self, test: str, subtask: str, ccd: int | None) -> Path:
        """``ccd<n>/<subtask>`` for a sub-task per CCD, ``block/<subtask>`` for one of the whole block."""
        return self.test(test) / ("block" if ccd is None else f"ccd{ccd}") / subtask

    def record(self, test: str, subtask: str, ccd: int | None) -> Path:
        """The JSON that ends a sub-task: the output that a rule declares."""
        return self.subtask_folder(test, subtask, ccd) / f"{subtask}.json"

    def tables(self, test: str) -> Path:
        return self.test(test) / "tables"

    def products(self, test: str) -> Path:
        return self.test(test) / "products"

    def figures(self, test: str) -> Path:
        return self.test(test) / "figures"

    def verdict(self, test: str) -> Path:
        return self.test(test) / "verdict.json"

    def report(self, test: str, kind: str = "pdf") -> Path:
        return self.test(test) / f"{test}_report.{kind}"
