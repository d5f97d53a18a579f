"""Follow a text file that grows: new complete lines only, whatever happens to the file.

One reader for the gate (exposure log) and the monitor (house-keeping). The writer may be in the middle
of a line; the file may be copied anew by rsync (other inode, same beginning), replaced by another one,
or cut. Standard library only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SAMPLE = 4096  # bytes at both ends of what was read that tell one file from another
MAX_READ = 64 * 1024 * 1024  # bytes taken in one call; the rest comes with the next
MAX_LINE = 1024 * 1024


class News(NamedTuple):
    """What one call of `Follower.read` found.

    ``restarted``: the file is another one than before, and ``lines`` begin at its first line. ``missing``:
    there is no file now. ``more``: call again, there is more than one call takes. ``skipped``: bytes of an
    endless line that were left out.
    """

    lines: list[str]
    first_line: int  # number of the first of `lines`, from 1
    restarted: bool = False
    missing: bool = False
    more: bool = False
    skipped: int = 0


class Follower:
    """Reads the new complete lines of a growing file.

    Parameters
    ----------
    path : the file; it may not exist yet.
    state : what `state` gave before, to go on after a restart of the program.
    chunk : bytes taken in one call; small ones keep the memory low.
    """

    def __init__(self, path: Path | str, state: dict | None = None, chunk: int = MAX_READ):
        self.path = Path(path)
        self.chunk = chunk
        state = state or {}
        self.offset: int = state.get("offset", 0)
        self.line: int = state.get("line", 0)
        self._mark: str = state.get("mark", "")
        self._seen: tuple | None = None  # inode, size and time at the last call

    @property
    def state(self) -> dict:
        """Where the reading stands, as JSON holds it."""
        return {"offset": self.offset, "line": self.line, "mark": self._mark}

    def read(self) -> News:
        """New complete lines since the last call, without line ends. Never raises for a missing file."""
        try:
            stream = open(self.path, "rb", opener=_open_without_waiting)  # noqa: SIM115
        except OSError:
            self._seen = None
            return News([], self.line + 1, missing=True)
        with stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return News([], self.line + 1, missing=True)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen and status.st_size == self.offset:
                return News([], self.line + 1)
            restarted = self._is_another(stream, status.st_size)
            if restarted:
                self.offset, self.line, self._mark = 0, 0, ""
            self._seen = seen
            return self._take(stream, restarted)

    def _is_another(self, stream, size: int) -> bool:
        """Whether the part read before is no longer there: cut, replaced or rewritten."""
        if self.offset == 0:
            return False
        return size < self.offset or self._fingerprint(stream) != self._mark

    def _fingerprint(self, stream) -> str:
        """Digest of the first and the last bytes of what was read."""
        import hashlib

        stream.seek(0)
        head = stream.read(min(_SAMPLE, self.offset))
        stream.seek(max(0, self.offset - _SAMPLE))
        tail = stream.read(min(_SAMPLE, self.offset))
        return hashlib.sha256(head + tail).hexdigest()[:32]

    def _take(self, stream, restarted: bool) -> News:
        stream.seek(self.offset)
        data = stream.read(self.chunk)
        end = data.rfind(b"\n") + 1
        first, skipped = self.line + 1, 0
        if end == 0 and len(data) > MAX_LINE:
            # no line end in sight: not text. Step over it, so that the memory and the time stay bounded.
            skipped, self.offset = len(data), self.offset + len(data)
            self._mark = self._fingerprint(stream)
            return News([], first, restarted, more=len(data) == self.chunk, skipped=skipped)
        lines = data[:end].decode("utf-8", errors="replace").split("\n")[:-1] if end else []
        self.offset += end
        self.line += len(lines)
        if end:
            self._mark = self._fingerprint(stream)
        return News(
            [line.removesuffix("\r") for line in lines], first, restarted, more=len(data) == self.chunk
        )


class RowFollower:
    """Rows of a growing exposure log or house-keeping file: a `Follower` and a parser of its lines.

    Parameters
    ----------
    path : the file.
    make_parser : called with `path`, gives a parser with a method ``feed(lines)``: ``explog.LogParser`` or
        ``hk.HKParser``. A file that was replaced gets a new one.
    """

    def __init__(self, path: Path | str, make_parser: Callable[[Path], object]):
        self.path = Path(path)
        self._make_parser = make_parser
        self.follower = Follower(path)
        self.parser = make_parser(self.path)

    def read(self) -> tuple[list, bool]:
        """(new rows, whether they start the file anew). `InputError` for a file with a wrong header."""
        rows: list = []
        restarted, more = False, True
        while more:
            news = self.follower.read()
            more = news.more
            if news.restarted:
                self.parser, rows, restarted = self._make_parser(self.path), [], True
            rows.extend(self.parser.feed(news.lines))
        return rows, restarted


def _open_without_waiting(path, flags):
    """Open without blocking, so that a pipe in the folder cannot stop the reader."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
