"""Files written so that a power cut leaves the old content or the new one, never a torn one.

Also JSON without NaN, checksums, links, and `InputError`: the one way to say that something a person
gave is wrong. Standard library only, and what takes long to import only where it is used.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path

#: Largest JSON file that is read, bytes. Verdicts and manifests are far below.
MAX_JSON_BYTES = 64 * 1024 * 1024
PART = ".part"


class InputError(Exception):
    """A file or value given by a person is not usable; ``str()`` is the whole message.

    Parameters
    ----------
    problem : what is wrong, a short sentence without a full stop.
    file : the file it is in.
    where : line, key, column or sheet inside the file.
    expected : what should be there.
    remedy : what the reader can do about it.
    """

    is_input_error = True

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        where: str | int | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ):
        self.problem = problem
        self.file = None if file is None else str(file)
        self.where = f"line {where}" if isinstance(where, int) else where
        self.expected = expected
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        place = ", ".join(part for part in (self.file, self.where) if part)
        text = f"{place}: {self.problem}" if place else self.problem
        if self.expected:
            text += f"; expected {self.expected}"
        return text + (f". {self.remedy}" if self.remedy else "")

    def __reduce__(self):
        fields = {name: getattr(self, name) for name in ("file", "where", "expected", "remedy")}
        return _rebuild_input_error, (self.problem, fields)


def _rebuild_input_error(problem: str, fields: dict) -> InputError:
    return InputError(problem, **fields)


def sync_folder(folder: Path | str) -> None:
    """Make a rename inside `folder` survive a power cut (where the system allows it)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_bounded(path: Path | str, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes. OSError otherwise: a pipe would hang the reader."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit >> 20} MB", str(path))
    return data


def part_path(path: Path | str) -> Path:
    """Unique name beside `path` that no reader takes for a finished file: ``.<name>.<random>.part``."""
    path = Path(path)
    part = path.parent / f".{path.name[:80]}.{os.urandom(6).hex()}{PART}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return part


@contextlib.contextmanager
def replacing(path: Path | str, sync: bool = True):
    """Open a binary file that takes the place of `path` when the block ends well.

    `sync` False leaves out the fsync calls: for data that can be made again, such as simulated frames.
    An error in the block removes the partial file and keeps what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        with open(part, "wb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.chmod(part, _mode_for(path))
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def _umask() -> int:
    """The user's umask. It can only be read by setting it: done once, before there are threads that write."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _umask()


def _mode_for(path: Path) -> int:
    """Permissions of the file replaced, else those of a new file under the user's umask."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return 0o666 & ~_UMASK


def write_atomic(path: Path | str, content: bytes | str, sync: bool = True) -> Path:
    """Write `content` (text as UTF-8) to `path`: part file, fsync, rename, fsync of the folder."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path, sync=sync) as stream:
        stream.write(data)
    return Path(path)


def plain(value):
    """`value` as JSON can hold it: NaN and infinity become None, numpy scalars and arrays plain Python."""
    if value is None or isinstance(value, bool | int | str):
        return value if type(value) in (bool, int, str, type(None)) else _plain_subclass(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def _plain_subclass(value):
    """Enumerations and other sub-classes of int and str, as their plain value."""
    return int(value) if isinstance(value, int) else str.__str__(value)


def json_text(obj) -> str:
    """`obj` as indented JSON with a trailing newline, keys in the order given."""
    import json

    return json.dumps(plain(obj), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path | str, obj) -> Path:
    """Write `obj` to `path` as JSON, atomically. NaN and infinity become null."""
    return write_atomic(path, json_text(obj))


def read_json(path: Path | str):
    """Content of a JSON file; `InputError` names file and line when it cannot be read."""
    import json

    path = Path(path)
    try:
        text = read_bounded(path, MAX_JSON_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", file=path, expected="JSON") from error
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON ({error.msg})", file=path, where=error.lineno) from error
    except (RecursionError, ValueError) as error:
        raise InputError("is not usable JSON (nested too deep, or a number too long)", file=path) from error


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    import hashlib

    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def link_or_copy(src: Path | str, dst: Path | str) -> Path:
    """Put `src` at `dst`, replacing it: a hard link where the file system allows it, else a copy.

    Both ways the file appears whole or not at all. Symbolic links are resolved first, so that `dst`
    stays readable when the tree is moved.
    """
    import shutil

    src, dst = Path(src).resolve(), Path(dst)
    dst.parent.mkdir(parents=True, exist_ok=True)
    if dst.exists() and not dst.is_symlink() and src.samefile(dst):
        return dst
    part = part_path(dst)
    try:
        part.unlink()
        try:
            os.link(src, part)
        except OSError:
            shutil.copy2(src, part)
        os.replace(part, dst)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return dst
