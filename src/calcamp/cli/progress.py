"""What a run says on a terminal: one line that is renewed, and errors in full.

Snakemake's own output is read line by line; nothing of it is lost, for Snakemake keeps it in ``.snakemake/log``.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

#: Options with which a person asks for Snakemake's own words.
PLAIN = {
    *("-n", "--dry-run", "-q", "--quiet", "-p", "--printshellcmds", "--verbose", "--logger", "-h", "--help"),
    *(
        "-v",
        "--version",
        "-S",
        "--summary",
        "-D",
        "--detailed-summary",
        "--dag",
        "--rulegraph",
        "--filegraph",
    ),
    *("--report", "--lint", "--unlock", "--list-rules", "-l", "--list-untracked", "--cleanup-metadata"),
}
_BLOCK = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
_DONE = re.compile(r"(\d+) of (\d+) steps")
_FINISHED = re.compile(r"Finished jobid: (\d+)")
_STAMP = re.compile(r"\[\w{3} \w{3} +\d+ [\d:]{8} \d{4}\]")
_FAULT = re.compile(
    r"(Error in |\w*(Error|Exception)( in .*)?:?$|\w+(Error|Exception): |Error: |Removing output files of failed)"
)


def wants_progress(arguments: list[str]) -> bool:
    """Whether none of the options asks for Snakemake's own words."""
    return not any(a.split("=")[0] in PLAIN for a in arguments)


class Reader:
    """The state of a run as its output tells it."""

    def __init__(self, now=time.monotonic):
        self._now = now
        self.done = self.total = 0
        self.running: dict[str, tuple[str, float]] = {}  # job number -> (what, since)
        self.seconds: list[float] = []  # of finished jobs, gates left out
        self._block: dict[str, str] | None = None
        self._fault = False

    def feed(self, line: str) -> str | None:
        """Take a line; returned when a person must see it."""
        text = line.rstrip()
        if self._block is not None:
            if line.startswith("    "):
                key, _, value = text.strip().partition(": ")
                self._block[key] = value
                if "jobid" in self._block and key in ("jobid", "wildcards"):
                    self._begin(self._block)
                return None
            self._block = None
        if self._fault and (not text or _STAMP.match(text) or _BLOCK.match(text)):
            self._fault = False
        if match := _BLOCK.match(text):
            self._block = {"rule": match[1]}
        elif match := re.match(r"total +(\d+)$", text):
            self.done, self.total = 0, int(match[1])
            self.running.clear()
        elif match := _FINISHED.match(text):
            what, since = self.running.pop(match[1], ("", self._now()))
            if what and not what.startswith("acquire"):
                self.seconds.append(self._now() - since)
        elif match := _DONE.match(text):
            self.done, self.total = int(match[1]), int(match[2])
        elif _FAULT.match(text):
            self._fault = True
        return text if self._fault and text else None

    def _begin(self, block: dict[str, str]) -> None:
        names = dict(item.split("=", 1) for item in block.get("wildcards", "").split(", ") if "=" in item)
        words = [block["rule"], names.get("test", ""), f"CCD{names['ccd']}" if "ccd" in names else ""]
        self.running[block["jobid"]] = (" ".join(filter(None, words)), self._now())

    def minutes_left(self, cores: int, gates: int, acquisition_min: float) -> float | None:
        """Of analysis or of acquisition, whichever takes longer; None before the first jobs have ended."""
        if not self.seconds:
            return acquisition_min or None
        jobs = max(0, self.total - self.done - gates)
        return max(acquisition_min, jobs * sum(self.seconds) / len(self.seconds) / max(1, cores) / 60)


def sentence(reader: Reader, waiting: dict[str, dict], cores: int) -> str:
    """``12 of 29 jobs · bias_basic BIAS01 CCD1 · waiting for DARK01 1/4 · about 3 min left``."""
    parts = [f"{reader.done} of {reader.total} jobs" if reader.total else "planning"]
    busy = [what for what, _ in reader.running.values() if what and not what.startswith("acquire")]
    if busy:
        parts.append(", ".join(busy[:3]) + (f" and {len(busy) - 3} more" if len(busy) > 3 else ""))
    if waiting:
        parts.append(
            "waiting for " + ", ".join(f"{n} {w['frames']}/{w['declared']}" for n, w in waiting.items())
        )
    left = reader.minutes_left(
        cores, len(waiting), max((w["left_min"] for w in waiting.values()), default=0.0)
    )
    if left is not None and reader.done < reader.total:
        parts.append(f"about {max(1, round(left))} min left")
    return " · ".join(parts)


def waiting_tests(planned) -> dict[str, dict]:
    """Tests whose gate is closed, and how far they are, in the order of the session."""
    from calcamp.data.alive import is_running, read_state

    notes = {name: read_state(planned.results.test(name) / "waiting.json") for name in planned.tests}
    return {name: note for name, note in notes.items() if note and is_running(note)}


def follow(stream, planned, cores: int, console=None) -> Reader:
    """Show a run until its output ends.

    Parameters
    ----------
    stream : text stream of Snakemake's output.
    planned : Plan; its waiting tests are shown.
    console : rich console; that of the terminal when left out.
    """
    import threading

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    reader, console = Reader(), console or Console()

    def shown() -> Text:
        return Text(sentence(reader, waiting_tests(planned), cores), overflow="ellipsis", no_wrap=True)

    ended = threading.Event()
    with Live(shown(), console=console, auto_refresh=False, transient=True) as live:

        def renew() -> None:
            while not ended.wait(1.0):
                live.update(shown(), refresh=True)

        threading.Thread(target=renew, name="progress", daemon=True).start()
        tail: list[str] = []
        for line in stream:
            said = reader.feed(line)
            tail = [*tail[-40:], line.rstrip()]
            if said is not None:
                live.console.print(said, markup=False, highlight=False)
        ended.set()
    if not reader.total and any(tail):
        # It ended before the first job: what it said is all there is to show.
        console.print("\n".join(tail), markup=False, highlight=False)
    else:
        log = sorted(Path(".snakemake", "log").glob("*.log"))
        where = f"; all that was said: {log[-1]}" if log and reader.done < reader.total else ""
        console.print(f"{reader.done} of {reader.total} jobs done{where}", markup=False, highlight=False)
    return reader
