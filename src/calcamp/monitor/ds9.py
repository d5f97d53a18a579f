"""SAOImage DS9 through XPA: images and regions to one named instance, never to another.

XPA lets a pattern drive every open DS9, so a target is resolved first: its title or access point must
belong to exactly one instance, and commands go to the access point. Only programs of the XPA tools are
called, never a shell.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calcamp.data.files import InputError

TIMEOUT_S = 30.0
_TITLE = re.compile(r"[A-Za-z0-9_.:-]{1,60}")


class Ds9Error(InputError):
    """DS9 or XPA cannot do what was asked; the text says why."""


@dataclass(frozen=True)
class Instance:
    """A running DS9."""

    title: str
    method: str  # host:port or path of a socket: unique


def socket_folder() -> Path:
    """Own folder (0700) for the sockets of DS9s that calcamp starts, so that no other user can command them."""
    base = os.environ.get("XDG_RUNTIME_DIR") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "calcamp-xpa"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise Ds9Error("the folder of XPA sockets belongs to another user", file=folder)
    folder.chmod(0o700)
    return folder


def environment(private: bool = True) -> dict[str, str]:
    """Environment of XPA programs: what the user has set wins; else unix sockets in `socket_folder`."""
    env = dict(os.environ)
    if private and "XPA_METHOD" not in env:
        env["XPA_METHOD"] = "unix"
        env["XPA_TMPDIR"] = str(socket_folder())
    return env


class Ds9:
    """XPA calls. `env` decides which instances are seen; tests give their own."""

    def __init__(self, env: dict[str, str] | None = None, programs: Path | None = None):
        self.env = environment() if env is None else env
        self._programs = programs

    def _program(self, name: str) -> str:
        path = str(self._programs / name) if self._programs else shutil.which(name, path=self.env.get("PATH"))
        if not path or not os.access(path, os.X_OK):
            raise Ds9Error(
                f"the program {name} is not installed",
                expected="DS9 and the XPA tools",
                remedy="Install saods9 and xpa-tools",
            )
        return path

    def _run(self, *arguments: str, data: str | None = None) -> str:
        try:
            done = subprocess.run(
                [self._program(arguments[0]), *arguments[1:]],
                input=data,
                stdin=subprocess.DEVNULL if data is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                env=self.env,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Ds9Error(f"DS9 did not answer within {TIMEOUT_S:.0f} s") from error
        if done.returncode != 0:
            words = " ".join((done.stderr or done.stdout).split())[:300]
            raise Ds9Error(f"DS9 refused: {words or f'exit {done.returncode}'}")
        return done.stdout

    def instances(self) -> list[Instance]:
        """Running DS9s that this user can reach."""
        try:
            text = self._run("xpaget", "xpans")
        except Ds9Error as error:
            if "not installed" in str(error):
                raise
            return []
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 4 and words[0] == "DS9":
                found.append(Instance(words[1], words[3]))
        return found

    def resolve(self, target: str | None) -> Instance:
        """The one instance that `target` (title or method) names; without it the only one that runs."""
        running = self.instances()
        listing = ", ".join(f"{i.title} ({i.method})" for i in running) or "none"
        if target is not None:
            fitting = [i for i in running if target in (i.title, i.method)]
        else:
            fitting = running
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            raise Ds9Error(
                f"no DS9 is called {target!r}" if target else "no DS9 is running",
                expected=f"one of: {listing}" if running else None,
                remedy="Start one with:  calcamp ds9 --new",
            )
        raise Ds9Error(
            f"{len(fitting)} DS9s {'are called ' + target if target else 'are running'}: {listing}",
            remedy="Name one with --target; an access point (the part in brackets) is always unique",
        )

    def start(self, title: str | None = None, wait_s: float = 20.0, options: Sequence[str] = ()) -> Instance:
        """Start a DS9 with a title that no other has."""
        title = title or f"calcamp-{os.getpid()}-{int(time.time()) % 100000}"
        if not _TITLE.fullmatch(title):
            raise Ds9Error(f"{title!r} is no title", expected="letters, digits and _ . : -")
        if any(i.title == title for i in self.instances()):
            raise Ds9Error(f"a DS9 called {title!r} is running", remedy="Choose another title")
        method = self.env.get("XPA_METHOD", "inet")
        subprocess.Popen(
            [self._program("ds9"), "-title", title, "-xpa", method, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=self.env,
        )
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            found = [i for i in self.instances() if i.title == title]
            if found:
                return found[0]
            time.sleep(0.1)
        raise Ds9Error(f"the DS9 called {title!r} did not come up within {wait_s:.0f} s")

    def set(self, instance: Instance, *words: str, data: str | None = None) -> None:
        """One XPA command to one instance, by its access point."""
        if data is None:
            self._run("xpaset", "-p", instance.method, *words)
        else:
            self._run("xpaset", instance.method, *words, data=data)

    def show(
        self,
        instance: Instance,
        files: Iterable[tuple[int, Path]],
        regions: dict[int, str] | None = None,
        tile: bool = False,
        scale: str = "histequ",
    ) -> int:
        """Load (frame number, file) pairs; returns how many. ``regions`` are DS9 texts by frame."""
        frames = []
        for frame, path in files:
            path = Path(path).resolve()
            if any(c in str(path) for c in " {}[]\"';$\\\n\t"):
                # DS9 takes the name as Tcl words and filters in brackets: such a name could be a command
                raise Ds9Error("the path holds characters that DS9 would not take as a name", file=path)
            self.set(instance, "frame", str(frame))
            self.set(instance, "file", str(path))
            self.set(instance, "zoom", "to", "fit")
            self.set(instance, "scale", scale)
            self.set(instance, "scale", "mode", "zscale")
            text = (regions or {}).get(frame)
            if text:
                self.set(instance, "regions", "-format", "ds9", data=text)
            frames.append(frame)
        if tile:
            self.set(instance, "tile", "yes")
            for frame in frames:  # the tiles are smaller than the frames were
                self.set(instance, "frame", str(frame))
                self.set(instance, "zoom", "to", "fit")
        return len(frames)


# ---- regions -------------------------------------------------------------------------------------
def spots_region(spots: Iterable[tuple[float, float, str]], radius: float = 15.0) -> str:
    """DS9 regions: circles at (x, y) pixel positions counted from 0, with a name."""
    lines = ["# Region file format: DS9", "global color=green", "image"]
    for x, y, name in spots:
        label = re.sub(r"[^A-Za-z0-9_.+ -]", "_", str(name))[:40]
        lines.append(f"circle({x + 1:.3f},{y + 1:.3f},{radius:g}) # text={{{label}}}")
    return "\n".join(lines) + "\n"


def mask_region(mask, most: int = 20000) -> tuple[str, int]:
    """(regions, boxes left out) of the bad pixels of a mask [row, column]: one box per run along a column."""
    import numpy as np

    bad = np.asarray(mask) != 0
    edges = np.diff(np.pad(bad, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    columns, starts = np.nonzero((edges == 1).T)
    _, ends = np.nonzero((edges == -1).T)
    lengths = ends - starts
    order = np.argsort(-lengths, kind="stable")[:most]
    lines = ["# Region file format: DS9", "global color=red", "image"]
    for k in order:
        height = int(lengths[k])
        lines.append(f"box({columns[k] + 1},{starts[k] + 0.5 + height / 2:g},1,{height},0)")
    return "\n".join(lines) + "\n", max(0, len(columns) - most)
