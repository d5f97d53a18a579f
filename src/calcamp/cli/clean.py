"""``calcamp clean``: free space in results. Products, tables and verdicts are never touched."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """What may be removed."""

    prepared = "prepared"
    figures = "figures"
    logs = "logs"
    all_but_products = "all-but-products"


@dataclass(frozen=True)
class Found:
    """A regular file that would be removed."""

    path: str  # relative to the results
    size: int


def kind_of(parts: tuple[str, ...]) -> Kind | None:
    """Kind of a file by its place: ``[session/]TEST/ccd<n>/prep/…``, ``figures/…``, ``logs/…``; None: kept.

    Kept are products, tables, verdicts, manifests, records, reports, configuration: what cannot be made again
    without the raw data, or is the result itself.
    """
    folders, name = parts[:-1], parts[-1]
    if "products" in folders or "config" in folders or "tables" in folders or ".snakemake" in folders:
        return None
    if len(folders) >= 2 and folders[-1] == "prep" and folders[-2] in ("ccd1", "ccd2", "ccd3"):
        return Kind.prepared if name.endswith((".fits", ".fits.gz", ".fits.fz")) else None
    if folders and folders[-1] == "figures":
        return Kind.figures if name.endswith((".png", ".svg")) else None
    if {"logs", "benchmarks"} & set(folders):
        return Kind.logs if name.endswith((".log", ".tsv", ".txt", ".out", ".err")) else None
    return None


def walk(
    root: int, parts: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Regular files below an open folder. Links are never followed: each folder is opened by its parent's handle."""
    with os.scandir(root) as entries:
        listing = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
    for name, is_folder in listing:
        try:
            if is_folder:
                if depth > 40:
                    continue
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
                try:
                    yield from walk(inner, (*parts, name), depth + 1)
                finally:
                    os.close(inner)
            else:
                status = os.stat(name, dir_fd=root, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield (*parts, name), status
        except OSError:
            continue


def is_results(root: Path) -> bool:
    """Results of a session or a test, or a folder that holds results of sessions."""
    marks = ("config/run.json", "summary.json", "manifest.json", "verdict.json")
    if any((root / mark).is_file() for mark in marks):
        return True
    return any((child / mark).is_file() for child in _folders(root) for mark in marks)


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def find(root: Path, kinds: set[Kind]) -> list[Found]:
    """Files of these kinds below `root`."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [
            Found("/".join(parts), status.st_size)
            for parts, status in walk(handle)
            if kind_of(parts) in kinds
        ]
    finally:
        os.close(handle)


def remove(root: Path, found: list[Found]) -> tuple[int, list[str]]:
    """Remove files, opening each folder on the way without following links; (bytes freed, faults)."""
    freed, faults = 0, []
    for item in found:
        handles = [os.open(root, os.O_RDONLY | os.O_DIRECTORY)]
        try:
            *folders, name = item.path.split("/")
            for folder in folders:
                handles.append(
                    os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handles[-1])
                )
            if stat.S_ISREG(os.stat(name, dir_fd=handles[-1], follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=handles[-1])
                freed += item.size
        except OSError as error:
            faults.append(f"{item.path}: {error.strerror}")
        finally:
            for handle in handles:
                os.close(handle)
    return freed, faults


def by_folder(found: list[Found]) -> dict[str, tuple[int, int]]:
    """(files, bytes) per folder."""
    sums: dict[str, tuple[int, int]] = {}
    for item in found:
        folder = item.path.rpartition("/")[0]
        files, size = sums.get(folder, (0, 0))
        sums[folder] = files + 1, size + item.size
    return sums


def size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} B"


@app.command()
def clean(
    results: Annotated[
        Path, typer.Argument(help="results of a test, of a session, or the folder of all sessions")
    ],
    kind: Annotated[list[Kind], typer.Option(help="what to remove; may be given more than once")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Remove prepared images, figures or logs. Never products, tables, verdicts or reports; never through a link.

    Reports in PDF keep their figures; those in HTML lose them until the report is made again.

    Example:  calcamp clean results_atCALDATA/D11 --kind prepared
    """
    if not results.is_dir():
        raise typer.BadParameter(f"{results}: no such folder")
    results = (
        results.resolve()
    )  # a workspace's results_atCALDATA is a link; links below it are never followed
    if not is_results(results):
        raise typer.BadParameter(
            f"{results}: neither results of a session nor of a test; give e.g. results/D11"
        )
    kinds = set(Kind) if Kind.all_but_products in kind else set(kind)
    found = find(results, kinds)
    total = sum(item.size for item in found)
    if as_json:
        print(json.dumps({"files": len(found), "bytes": total, "folders": by_folder(found)}, indent=1))
    else:
        for folder, (files, size) in by_folder(found).items():
            print(f"{size_text(size):>10s}  {files:5d} files  {folder}")
        print(f"{size_text(total):>10s}  {len(found):5d} files in all")
    if not found or dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            print("Nothing was removed: add --yes to remove these files.", file=sys.stderr)
            raise typer.Exit(1)
        if not typer.confirm("Remove these files?") or not typer.confirm(
            "Really? They must be made again to be seen"
        ):
            print("Nothing was removed.", file=sys.stderr)
            raise typer.Exit(1)
    freed, faults = remove(results, found)
    _note(results, kinds, found, faults)
    print(f"{size_text(freed)} freed", file=sys.stderr)
    for fault in faults:
        print(f"not removed: {fault}", file=sys.stderr)
    raise typer.Exit(1 if faults else 0)


def _note(results: Path, kinds: set[Kind], found: list[Found], faults: list[str]) -> None:
    """Write what was removed to ``cleaned.log`` of the results."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    bad = {fault.rpartition(": ")[0] for fault in faults}
    lines = [f"{stamp} removed {item.path} ({item.size} bytes)\n" for item in found if item.path not in bad]
    handle = os.open(results / "cleaned.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "a", encoding="utf-8", errors="replace") as stream:
        stream.write(f"{stamp} kinds: {', '.join(sorted(kinds))}\n")
        stream.writelines(lines)
