"""When raw frames are there, whole and no longer written to. Standard library only."""

from __future__ import annotations

import time
from pathlib import Path

from calcamp.campaign.acquisition import Look, frames_of
from calcamp.data.fitsblocks import FitsError, scan


def is_whole(path: Path) -> bool:
    """Whether a raw frame has the size that its headers promise; a gzip file cannot be asked."""
    if path.suffix == ".gz":
        return True
    with open(path, "rb") as stream:

        def read_at(offset: int, count: int) -> bytes:
            stream.seek(offset)
            return stream.read(count)

        try:
            hdus = scan(read_at, path.stat().st_size)
        except FitsError:
            return False
    return any(hdu.data_size for hdu in hdus)  # the first header alone is a valid file


class Settling:
    """Tells when the raw frames of a test are there, whole and no longer written to.

    It compares what it saw itself, so a clock that is set back or copied times do not mislead it.
    """

    def __init__(self, settle_s: float, now=time.monotonic):
        self._settle, self._now = settle_s, now
        self._seen: dict[str, tuple] = {}  # name -> (size, mtime_ns), since when
        self._whole: set[tuple] = set()
        self.changed = now()  # when anything last changed

    def waiting_for(self, look: Look) -> list[str]:
        """Names of frames that are absent, short or too young, with the reason."""
        found = []
        for name, path in frames_of(look):
            try:
                status = path.stat() if path else None
            except OSError:
                status = None
            state = (status.st_size, status.st_mtime_ns) if status else None
            if name not in self._seen or self._seen[name][0] != state:
                age = time.time() - status.st_mtime if status else 0.0
                begin = self._now() - (age if age > self._settle and name not in self._seen else 0.0)
                self._seen[name] = (state, begin)
                self.changed = max(self.changed, begin)
            if status is None:
                found.append(f"{name}: not there")
            elif not self._is_whole(path, state):
                found.append(f"{name}: shorter than its header promises")
            elif self._now() - self._seen[name][1] < self._settle:
                found.append(f"{name}: just written")
        return found

    def _is_whole(self, path: Path, state: tuple) -> bool:
        if (path, state) not in self._whole:
            try:
                if not is_whole(path):
                    return False
            except OSError:
                return False
            self._whole.add((path, state))
        return True
