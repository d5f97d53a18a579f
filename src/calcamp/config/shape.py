"""The base of all models of configuration files, and the translation of pydantic's errors.

A message reads ``file:line: key: what was found, what was expected; what to do``.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, StringConstraints, ValidationError

from calcamp.config.errors import ConfigError, did_you_mean, likely, raise_all
from calcamp.config.yamlfile import Document, Index, parse_yaml, read_yaml, show_path

#: Names of sessions, blocks, chambers, tests: they become file names and parts of commands.
NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Shape(BaseModel):
    """A part of a configuration file: strict types, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=False,
        validate_default=False,
        allow_inf_nan=False,  # nothing compares with a number that is none
    )


class File(Shape):
    """A whole configuration file: it knows where it was read and the line of each key."""

    _document: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        return self._document.file if self._document else None

    @property
    def folder(self) -> Path:
        """Folder of the file: relative paths start here."""
        return self.file.resolve().parent if self.file else Path.cwd()

    def error(self, path: tuple, message: str, remedy: str = "") -> ConfigError:
        """A `ConfigError` at the key `path` of this file."""
        line = self._document.line(path) if self._document else None
        return ConfigError(self.file, line, show_path(path), message, remedy)

    def path_to(self, text: str | Path) -> Path:
        """A path named in this file, made absolute."""
        return Path(_normal(self.folder / Path(text).expanduser()))

    @classmethod
    def load(cls, path: Path | str, overrides: dict | None = None):
        """Read and validate a file; all faults at once."""
        return cls.from_document(read_yaml(path, keep_faults=True), overrides)

    @classmethod
    def from_text(cls, text: str, file: Path | str = "<text>"):
        """As `load`, of a string."""
        return cls.from_document(parse_yaml(text, file, keep_faults=True))

    @classmethod
    def from_document(cls, document: Document, overrides: dict | None = None):
        data = document.data
        if not isinstance(data, dict):
            raise_all(document.faults)
            found = "an empty file" if data is None else f"{_what(data)}"
            raise ConfigError(
                document.file,
                document.line(),
                "",
                f"found {found}, expected keys such as {_first_keys(cls)}",
                "add them",
            )
        if overrides:
            data = merge(data, overrides)
        faults = list(document.faults)
        try:
            model = cls.model_validate(data)
        except ValidationError as error:
            told = {fault.key for fault in faults}
            faults += [
                fault for fault in translate(error, cls, data, document, overrides) if fault.key not in told
            ]
        raise_all(
            sorted(faults, key=lambda fault: fault.line or 0)
        )  # here: no traceback of pydantic's below ours
        model._document = document
        return model


def _normal(path: Path) -> str:
    import os.path

    return os.path.normpath(os.path.abspath(path))


def merge(data: dict, overrides: dict) -> dict:
    """`data` with `overrides` laid over it, mapping by mapping; keys such as ``wait.poll_s`` reach inside."""
    result = dict(data)
    for key, value in overrides.items():
        if isinstance(key, str) and "." in key and key not in result:
            first, rest = key.split(".", 1)
            key, value = first, {rest: value}
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif isinstance(value, dict):
            result[key] = merge({}, value)
        else:
            result[key] = value
    return result


# ---- from pydantic's errors to ours ---------------------------------------------------------------
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "none_required": "null",
}


def _what(value: object) -> str:
    """A found value in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_keys(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    return ", ".join(required or list(model.model_fields)[:4])


def _models_in(annotation) -> list[type[BaseModel]]:
    """Models reachable from a field's annotation without going through a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (Annotated, list, dict, typing.Union, types.UnionType):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _walk(model: type[BaseModel], data: object, loc: tuple) -> tuple[tuple, type[BaseModel], Any]:
    """Path in the data of an error's `loc`, the model that holds its last key, and the field if any.

    `loc` also holds names of validators and branches of unions, which are no keys: they are skipped.
    """
    path: tuple = ()
    owner, inner, field = model, [model], None
    for count, part in enumerate(loc):
        last = count == len(loc) - 1
        if part == "[key]":
            continue
        is_key = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        here = next((m for m in inner if part in m.model_fields), None)
        if not is_key and not (last and here):
            continue
        if isinstance(data, list):  # [low, high] is read as a mapping
            path = (*path, Index({"low": 0, "high": 1}.get(part, part)))
        else:
            path = (*path, part)
        if here:
            owner, field = here, here.model_fields[part]
            inner = _models_in(field.annotation)
        elif inner:
            owner = inner[0]
        data = data[part] if is_key else None
    return path, owner, field


def translate(
    error: ValidationError,
    model: type[BaseModel],
    data: dict,
    document: Document,
    overrides: dict | None = None,
) -> list[ConfigError]:
    """Faults that a person can act on, in the order of the file."""
    found: dict[tuple, ConfigError] = {}
    items = [(item, *_walk(model, data, item["loc"])) for item in error.errors(include_url=False)]
    unknown = [path for item, path, _, _ in items if item["type"] == "extra_forbidden"]
    for item, path, owner, field in items:
        if item["type"] == "missing" and any(
            other[:-1] == path[:-1] and path[-1] in likely(other[-1], [path[-1]]) for other in unknown
        ):
            continue  # it is there, misspelt
        message, remedy = _explain(item, path, owner, field)
        overridden = overrides is not None and _reaches(overrides, path)
        file = "command line" if overridden else document.file
        line = None if overridden else document.line(path)
        fault = ConfigError(file, line, show_path(path), message, remedy)
        known = found.setdefault((path, item["type"] == "extra_forbidden"), fault)
        if known is not fault and message not in known.message:
            merged = f"{known.message}; or {message}"
            found[(path, False)] = ConfigError(file, line, show_path(path), merged, known.remedy)
    return sorted(found.values(), key=lambda fault: fault.line or 0)


def _reaches(overrides: dict, path: tuple) -> bool:
    """Whether the value at `path` came from the overrides."""
    here: object = merge({}, overrides)
    for part in path:
        if not isinstance(here, dict):
            return True
        if part not in here:
            return False
        here = here[part]
    return bool(path)


def _explain(item: dict, path: tuple, owner: type[BaseModel], field) -> tuple[str, str]:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    meaning = f" ({field.description})" if field is not None and field.description else ""
    if kind == "extra_forbidden":
        return "unknown key", did_you_mean(path[-1], owner.model_fields)
    if kind == "missing":
        return f"missing{meaning}", "add it"
    if kind in ("value_error", "assertion_error"):
        text = str(context.get("error", item["msg"]))
        message, _, remedy = text.partition("; ")
        return message, remedy
    return f"found {_what(value)}, expected {_expected(kind, item, context)}{meaning}", "correct it"


def _expected(kind: str, item: dict, context: dict) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    if kind == "literal_error":
        return context["expected"]
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME_PATTERN:
            return "a name of letters, digits, _, - and . (at most 64)"
        return f"text like {context['pattern']}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        signs = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
        bound = next(iter(value for key, value in context.items() if key in ("gt", "ge", "lt", "le")))
        return f"a number {signs[kind]} {bound}"
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        return f"{'at least' if kind == 'too_short' else 'at most'} {bound} item{'' if bound == 1 else 's'}"
    if kind == "string_too_short":
        return "some text"
    return item["msg"][:1].lower() + item["msg"][1:]
