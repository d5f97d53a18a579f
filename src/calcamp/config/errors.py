"""Errors of configuration files: where, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ConfigError(Exception):
    """One fault of a configuration file.

    Printed as ``file:line: key: message; remedy``. `errors` holds the single faults, so that one
    ``except ConfigError`` serves for this class and for `ConfigErrors`.
    """

    is_input_error = True

    def __init__(
        self,
        file: Path | str | None = None,
        line: int | None = None,
        key: str = "",
        message: str = "",
        remedy: str = "",
    ):
        self.file = str(file) if file is not None else ""
        self.line = line
        self.key = key
        self.message = message
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        parts = [part for part in (where, self.key) if part]
        tail = self.message + (f"; {self.remedy}" if self.remedy else "")
        return ": ".join([*parts, tail])

    @property
    def errors(self) -> list[ConfigError]:
        return [self]

    def as_dict(self) -> dict:
        """Plain data, for ``--json``."""
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "message": self.message,
            "remedy": self.remedy,
        }


class ConfigErrors(ConfigError):
    """All faults found in one go, one per line of the text."""

    def __init__(self, errors: Iterable[ConfigError]):
        self._errors = [single for error in errors for single in error.errors]
        first = self._errors[0]
        super().__init__(first.file, first.line, first.key, first.message, first.remedy)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self._errors)

    @property
    def errors(self) -> list[ConfigError]:
        return list(self._errors)


def raise_all(errors: list[ConfigError]) -> None:
    """Raise the only error as it is, several as `ConfigErrors`; nothing if there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigErrors(errors)


def likely(name: object, known: Iterable[object], number: int = 3) -> list[str]:
    """Known names that a misspelt `name` probably means, best first."""
    names = {str(item).lower(): str(item) for item in known}
    close = difflib.get_close_matches(str(name).lower(), names, n=number, cutoff=0.6)
    return [names[item] for item in close]


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """``did you mean 'x'?``, or the list of what is known when nothing is near."""
    known = [str(item) for item in known]
    close = likely(name, known)
    if close:
        return "did you mean " + " or ".join(f"'{item}'" for item in close) + "?"
    if len(known) > 40:
        known = [*known[:40], "..."]
    return "expected one of: " + ", ".join(known)
