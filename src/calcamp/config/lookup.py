"""Finding and loading configuration files by name: workspace first, then what comes with calcamp."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calcamp.config.errors import ConfigError, ConfigErrors, did_you_mean, raise_all
from calcamp.paths import packaged_config

if TYPE_CHECKING:
    from calcamp.config.block import Block
    from calcamp.config.chamber import Chamber
    from calcamp.config.clocks import Clocks
    from calcamp.config.limits import Limits
    from calcamp.config.session import Session
    from calcamp.detector.geometry import Detector

#: What each folder of config/ holds, in messages.
KINDS = {
    "blocks": "block",
    "chambers": "chamber",
    "detectors": "detector",
    "limits": "limits file",
    "clocks": "clock tables",
    "chambers/patterns": "spot pattern",
    "chambers/shutters": "shutter table",
}


def search_folders(kind: str, beside: Path | str) -> list[Path]:
    """Folders in which a name of `kind` is looked for, in this order.

    ``<beside>/config/<kind>/`` (a file at the root of a workspace), ``<beside>/../<kind>/`` (a session in
    config/sessions/), the folder `beside` itself for a file named by one of its own kind, the package.
    """
    beside = Path(beside).absolute()
    folders = [beside / "config" / kind, beside.parent / kind]
    if "/" in kind:  # chambers/patterns, named by a file in chambers/
        folders.append(beside / kind.split("/")[1])
    folders.append(packaged_config() / kind)
    return list(dict.fromkeys(folders))


def is_path(name: str) -> bool:
    """Whether a reference is a path rather than a name."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def find_file(kind: str, name: str, beside: Path | str) -> Path:
    """The YAML file of `name`, a name or a path relative to `beside`.

    Raises
    ------
    ConfigError
        With the likely names and the folders looked in.
    """
    what = KINDS.get(kind, kind)
    if is_path(name):
        path = (Path(beside) / Path(name).expanduser()).absolute()
        if not path.is_file():
            raise ConfigError(
                path, None, "", f"no such {what} file", f"correct the path ({name}, relative to {beside})"
            )
        return path
    folders = search_folders(kind, beside)
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        for folder in folders:
            path = folder / f"{name}.yaml"
            if path.is_file():
                return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    looked = ", ".join(str(folder) for folder in folders if folder.is_dir())
    raise ConfigError(
        None, None, "", f"unknown {what} {name!r} (looked in {looked})", did_you_mean(name, known)
    )


def names_of(kind: str, beside: Path | str = ".") -> list[str]:
    """Names of `kind` that can be used from `beside`."""
    return sorted({path.stem for folder in search_folders(kind, beside) for path in folder.glob("*.yaml")})


def _load(model, kind: str, key: str, name: str | Path, beside: Path | str | None):
    path = find_file(kind, str(name), beside if beside is not None else Path.cwd())
    loaded = model.load(path)
    own = getattr(loaded, key)
    if not is_path(str(name)) and own != str(name):
        raise loaded.error(
            (key,), f"found {own!r} in the file called {path.name}", "make the two names equal"
        )
    return loaded


def load_session(path: Path | str, overrides: dict | None = None) -> Session:
    """Read a session file.

    Parameters
    ----------
    path : path
        The session YAML; its relative paths start in its folder.
    overrides : dict
        Laid over the file, e.g. ``{"mode": "wait"}`` from the command line; ``wait.poll_s`` reaches
        inside.

    Raises
    ------
    ConfigError, ConfigErrors
        All faults of the file.
    """
    from calcamp.config.session import Session

    # Snakemake hands on numbers as numbers, but `--config check_only=true` as a text.
    words = {"true": True, "false": False}
    typed = {k: words.get(v.lower(), v) if isinstance(v, str) else v for k, v in (overrides or {}).items()}
    return Session.load(path, typed)


def load_block(name: str | Path, beside: Path | str | None = None) -> Block:
    """A block by name or path; see `find_file`."""
    from calcamp.config.block import Block

    return _load(Block, "blocks", "block", name, beside)


def load_chamber(name: str | Path, beside: Path | str | None = None) -> Chamber:
    """A chamber profile by name or path."""
    from calcamp.config.chamber import Chamber

    return _load(Chamber, "chambers", "chamber", name, beside)


def load_limits(name: str | Path = "default", beside: Path | str | None = None) -> Limits:
    """A limits file by name or path."""
    from calcamp.config.limits import Limits

    return _load(Limits, "limits", "limits", name, beside)


def load_detector(name: str | Path = "ccd273", beside: Path | str | None = None) -> Detector:
    """A detector by name or path, as `calcamp.detector.geometry.Detector`."""
    from calcamp.config.detector import DetectorFile

    return _load(DetectorFile, "detectors", "name", name, beside).detector()


def load_clocks(name: str | Path = "default", beside: Path | str | None = None) -> Clocks:
    """Clock tables of trap pumping by name or path."""
    from calcamp.config.clocks import Clocks

    return _load(Clocks, "clocks", "name", name, beside)


@dataclass(frozen=True)
class Configuration:
    """A session and everything that it names."""

    session: Session
    block: Block
    chamber: Chamber
    detector: Detector
    limits: Limits


def load_all(path: Path | str, overrides: dict | None = None) -> Configuration:
    """A session with its block, chamber, detector and limits; the faults of all of them at once.

    A name that leads nowhere is told at the line that names it.
    """
    session = load_session(path, overrides)
    faults: list[ConfigError] = []

    def get(loader, holder, key: str, name, beside):
        try:
            return loader(name, beside)
        except ConfigErrors as error:
            faults.append(error)
        except ConfigError as error:
            nowhere = not error.file or error.message.startswith("no such")
            faults.append(holder.error((key,), error.message, error.remedy) if nowhere else error)
        return None

    block = get(load_block, session, "block", session.block, session.folder)
    limits = get(load_limits, session, "limits", session.limits, session.folder)
    chamber = detector = None
    if block is not None:
        holder = session if session.chamber else block
        if holder.chamber is None:
            remedy = "add chamber: <name>, here or in the session"
            faults.append(block.error(("chamber",), f"block {block.block} names no chamber profile", remedy))
        else:
            beside = session.folder if not is_path(holder.chamber) else holder.folder
            chamber = get(load_chamber, holder, "chamber", holder.chamber, beside)
        beside = session.folder if not is_path(block.detector) else block.folder
        detector = get(load_detector, block, "detector", block.detector, beside)
    if limits is not None:
        faults += _unknown_overrides(session, block, limits)
    raise_all(faults)
    return Configuration(session, block, chamber, detector, limits)


def _unknown_overrides(session, block, limits) -> list[ConfigError]:
    faults = []
    for test, entry in session.tests.items():
        for name, remedy in limits.override_faults(entry.limits).items():
            faults.append(session.error(("tests", test, "limits", name), "unknown house-keeping key", remedy))
    if block is not None:
        for name, remedy in limits.override_faults(block.limits).items():
            faults.append(block.error(("limits", name), "unknown house-keeping key", remedy))
    return faults
