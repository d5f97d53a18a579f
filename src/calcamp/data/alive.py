"""Who runs a session: written when a run starts, read by those who would run, stop or unlock it.

Snakemake's own lock is not enough: it names nobody, stays after a kill, and a session that ends in the same
folder takes the locks of the others away. So `calcamp run` holds a lock of the kernel that ends with it and
with the Snakemake it started, and every run leaves its process in ``run.json``.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
from pathlib import Path

from calcamp.data.files import InputError, read_json


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


def who(state: dict) -> str:
    """``since 2019-03-12T07:00:00 by anna on lab3 (process 4711)``."""
    since = f"since {state['started']} " if state.get("started") else ""
    return f"{since}by {state.get('user', 'somebody')} on {state.get('host', '?')} (process {state.get('pid', '?')})"


def read_state(path: Path) -> dict:
    """A state file, empty when it is not there or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError, InputError):
        return {}


def refuse_second(path: Path, session: str) -> None:
    """`InputError` that says who, when ``run.json`` shows a run of the session by another living process."""
    state = read_state(path)
    if is_running(state) and (state.get("pid"), state.get("host")) != (os.getpid(), socket.gethostname()):
        raise InputError(
            f"session {session} is being run {who(state)}",
            remedy="Wait for it, or end it with: calcamp stop SESSION",
        )


class RunLock:
    """A lock of the kernel on a session, held while its file is open here or in a child."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        """Whether the lock is ours now; the file then says who we are."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(me()).encode(), 0)
        return True

    def holder(self) -> dict:
        """Who holds it."""
        try:
            return json.loads(os.pread(self._descriptor, 4096, 0))
        except ValueError:
            return {}

    @property
    def descriptor(self) -> int:
        """To be passed on to a child."""
        return self._descriptor

    def leave(self) -> None:
        os.close(self._descriptor)


def snakemake_locks(workdir: Path, root: Path) -> list[Path]:
    """Lock files of Snakemake in `workdir` that are about files below `root`."""
    found = []
    for path in sorted((workdir / ".snakemake" / "locks").glob("*.lock")):
        try:
            if any(line.startswith(f"{root}/") for line in path.read_text().splitlines()):
                found.append(path)
        except OSError:
            continue
    return found


def processes_of(words: tuple[str, ...], workdir: Path) -> list[int]:
    """Processes of this machine that work in `workdir` and whose command line holds all of `words`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if Path(os.readlink(path.with_name("cwd"))) != workdir.resolve():
                continue
        except OSError:
            continue
        if all(word in line for word in words) and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found
