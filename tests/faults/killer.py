"""Kill one process of a run at a time that nobody chose. Only descendants of the run given are touched."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """Process number and command line of all descendants of `pid`, itself first."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, todo = {}, [pid]
    while todo:
        one = todo.pop()
        try:
            line = (
                Path(f"/proc/{one}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
                .strip()
            )
        except OSError:
            continue
        if line:  # a zombie has none
            found[one] = line
        todo.extend(child for child, parent in parents.items() if parent == one)
    return found


def kind_of(line: str) -> str:
    """``main`` (Snakemake), ``gate``, ``step``, ``run`` (calcamp run), or the shell around a step."""
    if " -c set" in line or line.startswith(("/bin/bash", "bash", "/usr/bin/bash", "/bin/sh", "sh ")):
        return "shell"
    if "calcamp.steps.acquire" in line:
        return "gate"
    if "calcamp.steps" in line:
        return "step"
    if "snakemake" in line:
        return "main"
    return "run" if "calcamp run" in line else "helper"


def kill_one(run_pid: int, rng, kinds=("main", "step", "gate", "run")) -> str:
    """kill -9 a random process of a run; its kind, or an empty text when there was none."""
    victims: dict[str, list[int]] = {}
    for pid, line in descendants(run_pid).items():
        if (kind := kind_of(line)) in kinds:
            victims.setdefault(kind, []).append(pid)
    if not victims:
        return ""
    kind = rng.choice(sorted(victims))
    try:
        os.kill(rng.choice(victims[kind]), signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return kind
