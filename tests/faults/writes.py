"""A disk that fails at the k-th thing written to it: opened for writing, renamed, made, flushed to the disk."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path

_CALLS = ((os, "replace"), (os, "rename"), (os, "mkdir"), (os, "fsync"), (os, "link"))


class FailingDisk:
    """While it is entered, the k-th write below `folder` raises "No space left on device", and all after it.

    A disk that is full stays so; `once` makes it fail a single time. `count` says how many writes there were.
    """

    def __init__(self, folder: Path, k: int, once: bool = False):
        self.folder, self.k, self.once, self.count = str(folder), k, once, 0
        self._real = {}

    def _hit(self, what) -> None:
        if isinstance(what, str | os.PathLike) and not os.path.abspath(what).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.k or (self.count > self.k and not self.once):
            name = what if isinstance(what, str | os.PathLike) else self.folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))

    def __enter__(self) -> FailingDisk:
        real_open = io.open
        self._real = {(builtins, "open"): builtins.open, (io, "open"): io.open}

        def opened(file, mode="r", *args, **kwargs):
            if any(letter in mode for letter in "wax+"):
                self._hit(file)
            return real_open(file, mode, *args, **kwargs)

        builtins.open = io.open = opened
        for module, name in _CALLS:
            real = getattr(module, name)
            self._real[module, name] = real

            def called(first, *args, _real=real, **kwargs):
                self._hit(first)
                return _real(first, *args, **kwargs)

            setattr(module, name, called)
        return self

    def __exit__(self, *_) -> None:
        for (module, name), real in self._real.items():
            setattr(module, name, real)
