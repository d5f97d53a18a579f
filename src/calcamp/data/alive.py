"""Who runs a session: written when a run starts, read by those who would run, stop or unlock it."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path


def _start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: tells a process from a later one of the same number."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def me() -> dict:
    """This process, as written in ``run.json``."""
    return {
        "pid": os.getpid(),
        "ticks": _start_ticks(os.getpid()),
        "host": socket.gethostname(),
        "user": getpass.getuser() if os.environ.get("USER") or os.getuid() == 0 else str(os.getuid()),
    }


def is_running(state: dict) -> bool:
    """Whether the run described by `state` has not ended, as far as this machine can tell.

    A run on another host counts as running until it says that it ended.
    """
    if not state.get("pid") or state.get("ended"):
        return False
    if state.get("host") != socket.gethostname():
        return True
    ticks = _start_ticks(state["pid"])
    return ticks is not None and ticks == state.get("ticks")


def is_dead(state: dict) -> bool:
    """Whether the run never said that it ended and its process is proved to be gone."""
    return bool(state.get("pid")) and not state.get("ended") and not is_running(state)
