"""The log of the monitor: a readable file, and the same events as JSON lines beside it."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from pathlib import Path

from calcamp.data.files import plain

MAX_BYTES = 20 * 1024 * 1024
KEPT = 5  # older files: NAME.1 … NAME.5


class EventLog:
    """Writes events; a disk that fails stops nothing: the last events stay in memory for the page.

    Parameters
    ----------
    path : the readable file, None for none. The JSON lines go to the same name with ``.jsonl``.
    """

    def __init__(self, path: Path | str | None):
        self.path = None if path is None else Path(path)
        self.recent: deque[dict] = deque(maxlen=200)
        self.fault = ""
        self._lock = threading.Lock()
        self.count = 0

    def write(self, event: str, text: str, level: str = "INFO", **fields) -> None:
        """One event: `text` for people, `fields` for programs."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now % 1 * 1000):03d}"
        line = _one_line(text)
        with self._lock:
            self.count += 1
            self.recent.append({"time": now, "event": event, "level": level, "text": line})
            if self.path is None:
                return
            record = {"time": round(now, 3), "event": event, "level": level, "text": line, **fields}
            try:
                self._append(self.path, f"{stamp} - {level} - {line}\n")
                self._append(
                    self.path.with_name(self.path.name + ".jsonl"),
                    json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n",
                )
                self.fault = ""
            except OSError as error:
                self.fault = f"the log cannot be written ({error.strerror})"

    def _append(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(text)
            full = stream.tell() > MAX_BYTES
        if full:
            for n in range(KEPT, 0, -1):
                old = path if n == 1 else path.with_name(f"{path.name}.{n - 1}")
                if old.exists():
                    old.replace(path.with_name(f"{path.name}.{n}"))


def _one_line(text: str) -> str:
    """Control characters of data must not forge lines."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:2000]
