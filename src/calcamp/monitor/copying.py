"""Back-up and broadcast of a day-folder with rsync: incremental, verified, nothing is ever deleted.

A pass copies images and house-keeping first and the EXP-LOG last, so that a log at the other side never
names an image that is not there yet. Links that lead out of the day-folder are left out: a link must not
send a private file to the gateway. Programs are called with lists of arguments, never through a shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from calcamp.data.files import InputError, read_json, write_json
from calcamp.monitor.settings import Copying

PARTIAL = ".rsync-partial"
SETTLE_S = 60.0  # a file younger than this may still grow: it is copied, and verified later
_REMOTE = re.compile(
    r"(?P<login>[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[A-Za-z0-9_./~+=,-]+)"
)
#: rsync's exit codes in words; the others are given as numbers.
_CODES = {
    11: "the target cannot be written",
    12: "the connection broke",
    23: "some files were not copied",
    24: "some files vanished meanwhile",
    30: "the other side did not answer in time",
    35: "the gateway did not answer in time",
    255: "the gateway cannot be reached",
}


@dataclass(frozen=True)
class Target:
    """Where copies go: a local folder, or ``user@host:folder`` over ssh. The folder must exist."""

    text: str
    remote: bool
    shown: str = ""  # as it was given

    @classmethod
    def parse(cls, text: str) -> Target:
        """A target as the user gives it; `InputError` for rsync daemons and odd names."""
        text = text.rstrip("/") or "/"
        if "::" in text or "://" in text:
            raise InputError(
                f"{text!r} is no target", expected="a folder, or user@host:folder (ssh; no rsync daemon)"
            )
        match = _REMOTE.fullmatch(text)
        if match:
            return cls(text, True, text)
        if "@" in text.split("/")[0] or (":" in text.split("/")[0]):
            raise InputError(
                f"{text!r} is no target",
                expected="user@host:folder with letters, digits and _ . / ~ + = , - only",
                remedy="Give the folder another name, or make a link to it",
            )
        return cls(str(Path(text).expanduser().absolute()), False, text)

    def folder(self, name: str) -> str:
        """The copy of day-folder `name`."""
        return f"{self.text}/{name}"


@dataclass
class CopyState:
    """What the page shows of a target."""

    name: str  # back-up or broadcast
    target: str
    running: bool = False
    passes: int = 0
    last_try: float | None = None
    last_success: float | None = None
    seconds: float | None = None
    files: int = 0
    bytes: int = 0
    total_files: int = 0
    error: str = ""
    left_out: int = 0
    behind_s: float = 0.0
    verified: int = 0
    unverified: int = 0
    oldest_check: float | None = None
    differing: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        return asdict(self)


def rsync_program() -> str:
    found = shutil.which("rsync")
    if not found:
        raise InputError("the program rsync is not installed", remedy="Install rsync")
    return found


#: Older ones have published holes (CVE-2024-12084 to 12088, CVE-2024-12747 and later ones).
SAFE_RSYNC = (3, 4, 3)


def rsync_too_old() -> str:
    """A warning when rsync is older than `SAFE_RSYNC` or does not tell its version, else empty."""
    try:
        told = subprocess.run(
            [rsync_program(), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    found = re.search(r"version v?(\d+)\.(\d+)\.(\d+)", told)
    if found and tuple(map(int, found.groups())) >= SAFE_RSYNC:
        return ""
    name = ".".join(found.groups()) if found else "of unknown version"
    safe = ".".join(map(str, SAFE_RSYNC))
    older = "is older" if found else "may be older"
    return f"rsync {name} {older} than {safe}: make sure that your distribution has patched it (CVE-2024-12084 and later)"


def ssh_command(copying: Copying) -> str:
    """The ssh that rsync starts: no password, short time-outs."""
    ssh = copying.ssh
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=10"]
    words += ["-o", "StrictHostKeyChecking=accept-new"]
    if ssh.port:
        words += ["-p", str(ssh.port)]
    if ssh.key:
        words += ["-i", str(Path(ssh.key).expanduser())]
    if ssh.known_hosts:
        words += ["-o", f"UserKnownHostsFile={Path(ssh.known_hosts).expanduser()}"]
    return " ".join(words)  # rsync splits it at blanks; the settings allow none inside


class Rsync:
    """rsync calls of one target. `stop` ends a running one."""

    def __init__(self, folder: Path, target: Target, copying: Copying):
        self.folder = Path(folder)
        self.target = target
        self.copying = copying
        self.stopping = threading.Event()
        self._process: subprocess.Popen | None = None

    def run(self, *options: str, data: str | None = None, seconds: float) -> tuple[int, str, str]:
        """(exit code, stdout, stderr); 124 when `seconds` were over."""
        command = [rsync_program(), "-rltD", "--safe-links", f"--partial-dir={PARTIAL}", "--timeout=60"]
        command += ["--out-format=%n\t%l", "--exclude=*.part", f"--exclude={PARTIAL}", *options]
        if self.target.remote:
            command += ["-z", "-e", ssh_command(self.copying)]
        source = str(self.folder.resolve()) + "/"
        self._process = subprocess.Popen(
            [*command, "--", source, self.target.folder(self.folder.name) + "/"],
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            out, err = self._process.communicate(data, timeout=seconds)
            return self._process.returncode, out, err
        except subprocess.TimeoutExpired:
            self._end()
            out, err = self._process.communicate()
            return 124, out or "", err or ""
        finally:
            self._process = None

    def stop(self) -> None:
        self.stopping.set()
        self._end()

    def _end(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """(size, time in ns) of the regular files of a day-folder by name, links left out."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.endswith(".part"):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    found[entry.name] = (status.st_size, status.st_mtime_ns)
    except OSError:
        return {}
    return found


def links_in(folder: Path) -> int:
    """Number of symbolic links in a day-folder: those that lead out of it are not copied."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.is_symlink() for entry in entries)
    except OSError:
        return 0


class Copier:
    """Copies a day-folder to one target again and again, in a thread of its own.

    Parameters
    ----------
    name : ``back-up`` or ``broadcast``.
    state_file : what was verified, kept over restarts; None for nowhere.
    say : called with (event, text, level) for the log.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        target: Target,
        copying: Copying,
        period_s: float,
        state_file: Path | None = None,
        say: Callable[[str, str, str], None] = lambda event, text, level: None,
    ):
        self.state = CopyState(name, target.text)
        self.rsync = Rsync(folder, target, copying)
        self.copying = copying
        self.period_s = period_s
        self.say = say
        self.verified = Verification(self.rsync, state_file)
        self.started = time.time()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._again = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self, wait_s: float = 10.0) -> None:
        self.rsync.stop()
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def now(self) -> None:
        """Begin a pass at once."""
        self._again.set()

    def _loop(self) -> None:
        while not self.rsync.stopping.is_set():
            self._again.clear()
            try:
                self.one_pass()
            except Exception as error:  # a fault here must not end the back-up
                self.state.error = str(error) if isinstance(error, InputError) else type(error).__name__
                self.state.running = False
            self._again.wait(self.period_s)

    def one_pass(self) -> bool:
        """Copy what is new, then verify some; True when everything is at the other side."""
        state, begin = self.state, time.time()
        if not self.rsync.folder.is_dir():
            return False  # not there yet: nothing to copy, and nothing wrong with the target
        state.running, state.last_try = True, begin
        before = self.rsync.folder
        try:
            error, files, size = self._copy()
        finally:
            state.running = False
        if self.rsync.stopping.is_set():
            return False
        state.passes += 1
        state.seconds = time.time() - begin
        state.files, state.bytes = files, size
        state.total_files = len(files_of(before))
        state.left_out = links_in(before)
        if files or error != state.error:
            text = f"{state.name}: {files} files, {size} bytes in {state.seconds:.1f} s"
            self.say("copy", f"{text}{f': {error}' if error else ''}", "WARNING" if error else "INFO")
        state.error = error
        if error:
            return False
        state.last_success = time.time()
        if self.copying.verify_hours > 0:
            self._verify()
        return True

    def _copy(self) -> tuple[str, int, int]:
        """(error, files, bytes) of a pass: everything but the EXP-LOG, then the EXP-LOG."""
        target = self.rsync.target
        if not target.remote and not Path(target.text).is_dir():
            return "the target folder is not there (disk not mounted?)", 0, 0
        files = size = 0
        for options in (["--exclude=EXP_LOG_*"], ["--include=EXP_LOG_*", "--exclude=*"]):
            code, out, err = self.rsync.run(*options, seconds=self.copying.pass_limit or 1e6)
            names = [line.rpartition("\t") for line in out.splitlines() if "\t" in line]
            sent = [(n, s) for n, _, s in names if not n.endswith("/")]
            files += len(sent)
            size += sum(int(s) for _, s in sent if s.isdigit())
            if code not in (0, 24):
                return explain(code, err), files, size
        return "", files, size

    def _verify(self) -> None:
        report = self.verified.run(
            max_bytes=self.copying.verify_bytes, older_than_s=3600 * self.copying.verify_hours
        )
        state = self.state
        new = [name for name in report.differing if name not in state.differing]
        for name in new:
            self.say("verify", f"{state.name}: {name} differs at the other side", "ERROR")
        state.differing = report.differing
        state.verified, state.unverified, state.oldest_check = (
            report.verified,
            report.unverified,
            report.oldest,
        )

    def update_lag(self, now: float) -> None:
        """Seconds that the newest data have been waiting to be copied."""
        newest = max((m for _, m in files_of(self.rsync.folder).values()), default=0) / 1e9
        done = self.state.last_success
        self.state.behind_s = (
            0.0 if done is not None and newest <= done else max(0.0, now - newest) if newest else 0.0
        )

    def late(self, now: float, limit_s: float) -> bool:
        """No success for `limit_s`."""
        return limit_s > 0 and now - (self.state.last_success or self.started) > limit_s


def explain(code: int, stderr: str) -> str:
    """An error of rsync in one line."""
    if code == 124:
        return "the pass took too long and was stopped; the next one goes on"
    words = _CODES.get(code, f"rsync ended with {code}")
    last = [line for line in stderr.splitlines() if line.strip() and not line.startswith("rsync error")]
    detail = "".join(c if c.isprintable() else " " for c in last[0])[:200] if last else ""
    return f"{words}{f' ({detail})' if detail else ''}"


# ---- verification --------------------------------------------------------------------------------
@dataclass
class Verified:
    """Result of a verification so far."""

    verified: int = 0
    unverified: int = 0
    differing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # still young: may grow
    oldest: float | None = None
    read_bytes: int = 0
    error: str = ""

    @property
    def whole(self) -> bool:
        return not (self.differing or self.missing or self.unverified or self.error)


class Verification:
    """Reads finished files on both sides and compares their checksums; resumable.

    rsync reads both sides (``--checksum --dry-run``), so it works over ssh as well. A file that is verified is
    noted with its size and time; what changed since is verified again.
    """

    def __init__(self, rsync: Rsync, state_file: Path | None):
        self.rsync = rsync
        self.state_file = state_file
        self.seen: dict[str, list] = {}
        self.bad: dict[str, str] = {}
        self._load()

    def _load(self) -> None:
        """Take over what is on disk: the command ``calcamp verify-backup`` may have written it meanwhile."""
        if self.state_file is None or not Path(self.state_file).is_file():
            return
        with contextlib.suppress(InputError):
            data = read_json(self.state_file)
            if isinstance(data, dict) and data.get("target") == self.rsync.target.text:
                seen, bad = data.get("seen"), data.get("bad")
                if isinstance(seen, dict) and isinstance(bad, dict):
                    self.seen = {k: v for k, v in seen.items() if isinstance(v, list) and len(v) == 3}
                    self.bad = {str(k): str(v) for k, v in bad.items()}

    def run(
        self,
        *,
        max_bytes: int | None = None,
        older_than_s: float = 24 * 3600.0,
        seconds: float | None = None,
        settle_s: float = SETTLE_S,
        progress: Callable[[int, int], None] | None = None,
    ) -> Verified:
        """Verify files not verified within `older_than_s`, at most about `max_bytes` and `seconds`."""
        begin = now = time.time()
        self._load()
        files = files_of(self.rsync.folder)
        report = Verified()
        young = {n for n, (_, m) in files.items() if now - m / 1e9 < settle_s}
        due = []
        for name, (size, mtime) in sorted(files.items()):
            entry = self.seen.get(name)
            fresh = entry is not None and entry[:2] == [size, mtime] and now - entry[2] <= older_than_s
            if name in young:
                report.skipped.append(name)
            elif not fresh:
                due.append((entry[2] if entry else 0.0, name, size))
        due.sort()  # the oldest checks first
        done = 0
        while due and not self.rsync.stopping.is_set():
            if seconds is not None and time.time() - begin >= seconds:
                break
            if max_bytes is not None and report.read_bytes >= max_bytes:
                break
            batch = [due.pop(0)]
            while due and len(batch) < 200 and sum(s for _, _, s in batch) + due[0][2] < 200_000_000:
                batch.append(due.pop(0))
            report.error = self._compare([n for _, n, _ in batch], files)
            if report.error:
                break
            report.read_bytes += sum(s for _, _, s in batch)
            done += len(batch)
            self._save()
            if progress:
                progress(done, done + len(due))
        self._sum_up(report, files, young)
        self._save()
        return report

    def _compare(self, names: list[str], files: dict) -> str:
        """Compare some files; error text when that could not be done."""
        listing = "".join(name + "\0" for name in names)
        code, out, err = self.rsync.run(
            "--checksum",
            "--dry-run",
            "--itemize-changes",
            "--out-format=%i\t%n",
            "--from0",
            "--files-from=-",
            data=listing,
            seconds=3600.0,
        )
        if code not in (0, 23, 24):
            return explain(code, err)
        if code == 23:
            return explain(code, err)
        now = time.time()
        after = files_of(self.rsync.folder)
        changed = {}
        for line in out.splitlines():
            marks, _, name = line.partition("\t")
            if marks[:2] in ("<f", ">f", "cf") and name:
                changed[name] = "missing" if "+" in marks else "differs" if "c" in marks[2:] else ""
        for name in names:
            if after.get(name) != files[name]:
                continue  # it changed meanwhile: neither good nor bad
            verdict = changed.get(name, "")
            if verdict:
                self.bad[name] = verdict
                self.seen.pop(name, None)
            else:
                self.bad.pop(name, None)
                self.seen[name] = [*files[name], now]
        return ""

    def _sum_up(self, report: Verified, files: dict, young: set[str]) -> None:
        self.seen = {n: v for n, v in self.seen.items() if n in files}
        self.bad = {n: v for n, v in self.bad.items() if n in files}
        good = [n for n, v in self.seen.items() if v[:2] == list(files[n])]
        report.verified = len(good)
        report.unverified = len(files) - len(set(good) | young | set(self.bad))
        report.differing = sorted(n for n, v in self.bad.items() if v == "differs")
        report.missing = sorted(n for n, v in self.bad.items() if v == "missing")
        report.oldest = min((self.seen[n][2] for n in good), default=None)

    def _save(self) -> None:
        if self.state_file is not None:
            with contextlib.suppress(OSError):
                write_json(
                    self.state_file,
                    {"schema": 1, "target": self.rsync.target.text, "seen": self.seen, "bad": self.bad},
                )
