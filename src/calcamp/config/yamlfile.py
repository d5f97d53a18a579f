"""Reading and editing YAML so that every reader understands the same.

Snakemake reads YAML 1.1 (PyYAML), an editor that keeps comments reads YAML 1.2 (ruamel). Plain
scalars on which the two differ (``no``, ``010``, ``12:30``, ``1e5``, ``2019-03-12``) are refused with
their line: quotes, or another spelling, make them clear. Duplicate keys, tags, merge keys and
several documents in a file are refused too, and files that could exhaust memory are refused before
anything is built.

The file is read as a stream of parser events (libyaml), so that the limits hold while reading and
the line of every key is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calcamp.config.errors import ConfigError, raise_all

MAX_BYTES = 1_000_000
MAX_ALIASES = 32
MAX_DEPTH = 20
#: Values of a file once its aliases are followed. The largest file shipped has a few thousand.
MAX_NODES = 100_000
#: Faults told at once; a file with more has another problem.
MAX_FAULTS = 50


class Index(int):
    """Place in a list, to tell it from a whole number used as a key."""

    __slots__ = ()


@dataclass
class Document:
    """What a YAML file holds, and where.

    ``data`` is plain Python (dict, list, str, int, float, bool, None). ``lines`` maps the path of
    every key or list item (a tuple of keys and indices) to its line, counted from 1. ``faults`` is
    filled only on request: faults that leave the rest of the file readable.
    """

    data: object
    lines: dict[tuple, int] = field(default_factory=dict)
    file: Path | None = None
    faults: list[ConfigError] = field(default_factory=list)

    def line(self, path: tuple = ()) -> int | None:
        """Line of `path`, or of its nearest ancestor in the file."""
        path = tuple(path)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


# ---- scalars -------------------------------------------------------------------------------------
# What PyYAML (1.1) and the YAML 1.2 core schema make of a plain scalar. A scalar is accepted when both,
# and ruamel's mixture of the two, give the same value of the same type.
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_BOOL_11 = re.compile(r"^(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_HEX = re.compile(r"^0x[0-9a-fA-F]{1,16}$")
_INT_11 = re.compile(
    r"^[-+]?(?:0b[0-1_]+|0[0-7_]+|[0-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$"
)
_INT_12 = re.compile(r"^(?:[-+]?[0-9_]+|[-+]?0o[0-7_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?0b[01_]+)$")
_FLOAT_11 = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_FLOAT_12 = re.compile(
    r"^(?:[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_TIMESTAMP = re.compile(
    r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?)$"
)
_QUOTED = ("'", '"', "|", ">")
_DIFFERENT = object()
#: First characters of plain scalars that are not surely text.
_SUSPECT = frozenset("0123456789+-.~nNtTfFyYoO=<")


def resolve_plain(text: str) -> object:
    """Value of a plain scalar; `_DIFFERENT` when YAML 1.1 and 1.2 readers would not agree."""
    if text and text[0] not in _SUSPECT:
        return text
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text[0] in "tT"
    if _BOOL_11.match(text) or _TIMESTAMP.match(text) or text in ("=", "<<"):
        return _DIFFERENT
    if _INT.match(text):
        digits = text.lstrip("+-")
        leading_zero = len(digits) > 1 and digits[0] == "0"
        return _DIFFERENT if leading_zero or len(digits) > 30 else int(text)
    if _HEX.match(text):
        return int(text, 16)
    if _INT_11.match(text) or _INT_12.match(text):
        return _DIFFERENT
    first, second = bool(_FLOAT_11.match(text)), bool(_FLOAT_12.match(text))
    if not first and not second:
        return text
    if first != second or "_" in text:
        return _DIFFERENT
    lowered = text.lower()
    if lowered.endswith(("inf", "nan")):
        return float(lowered.replace(".", "", 1))
    return float(text)


def _advice(text: str) -> str:
    """How to write a scalar that is read differently."""
    if _BOOL_11.match(text):
        yes = text.lower() in ("yes", "on")
        return f'write {"true" if yes else "false"} for a switch, or "{text}" in quotes for text'
    if text == "<<":
        return "write the keys out, merge keys are not read"
    if _FLOAT_12.match(text) and not _FLOAT_11.match(text) and "_" not in text:
        try:
            return f'write {plain_float(float(text))} for the number, or "{text}" in quotes for text'
        except (ValueError, OverflowError):
            pass
    return f'write "{text}" in quotes for text, or a plain decimal number'


# ---- reading -------------------------------------------------------------------------------------
class _Collection:
    """A mapping or a list that is being filled."""

    __slots__ = ("anchor", "data", "is_map", "key", "key_line", "nodes", "path", "seen")

    def __init__(self, is_map: bool, path: tuple, anchor: str | None):
        self.is_map = is_map
        self.data: dict | list = {} if is_map else []
        self.path = path
        self.anchor = anchor
        self.key: object = _DIFFERENT  # no key waiting for its value
        self.key_line = 0
        self.nodes = 1
        self.seen: dict[str, int] = {}


class _Reader:
    """Builds a `Document` from parser events, collecting faults."""

    def __init__(self, file: Path | str):
        self.file = file
        self.lines: dict[tuple, int] = {}
        self.faults: list[ConfigError] = []
        self.stack: list[_Collection] = []
        self.anchors: dict[str, tuple[object, int]] = {}
        self.open_anchors: set[str] = set()
        self.aliases = 0
        self.root: object = None
        self.documents = 0

    def stop(self, line: int | None, message: str, remedy: str = "", key: str = ""):
        """Give up at once: going on could be dear or senseless."""
        raise_all([*self.faults, ConfigError(self.file, line, key, message, remedy)])

    def fault(self, line: int, key: str, message: str, remedy: str = "") -> None:
        """Note a fault and go on."""
        self.faults.append(ConfigError(self.file, line, key, message, remedy))
        if len(self.faults) >= MAX_FAULTS:
            raise_all(self.faults)

    # -- one event at a time
    def take(self, event) -> None:
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if kind == "ScalarEvent":
            if event.tag is not None and (event.tag != "!" or event.implicit[0]):
                self._refuse_tag(event.tag, line)
            value = self._scalar(event, line)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            self._add(value, 1, line)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._open(event, kind == "MappingStartEvent", line)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._close(line)
        elif kind == "AliasEvent":
            self._alias(event.anchor, line)
        elif kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                self.stop(
                    line, "a second document begins here", "keep one document in the file, without '---'"
                )

    def _refuse_tag(self, tag: str, line: int) -> None:
        self.fault(
            line, self._key_text(), f"found the tag {tag[:60]}", "leave the tag out; use quotes for text"
        )

    def _scalar(self, event, line: int) -> object:
        if event.style in _QUOTED:
            return event.value
        value = resolve_plain(event.value)
        if value is _DIFFERENT:
            shown = event.value if len(event.value) <= 40 else event.value[:40] + "..."
            self.fault(
                line,
                self._key_text(),
                f"{shown} is read in two ways (YAML 1.1 and 1.2 differ)",
                _advice(event.value) if len(event.value) <= 40 else "put it in quotes",
            )
            return event.value
        return value

    def _key_text(self) -> str:
        if not self.stack:
            return ""
        top = self.stack[-1]
        path = top.path
        if top.is_map and top.key is not _DIFFERENT:
            path = (*path, top.key)
        elif not top.is_map:
            path = (*path, Index(len(top.data)))
        return show_path(path)

    def _open(self, event, is_map: bool, line: int) -> None:
        if event.tag is not None:
            self._refuse_tag(event.tag, line)
        if len(self.stack) >= MAX_DEPTH:
            self.stop(line, f"nested deeper than {MAX_DEPTH} levels", "flatten the file")
        path: tuple = ()
        if self.stack:
            top = self.stack[-1]
            if top.is_map and top.key is _DIFFERENT:
                self.stop(line, "a mapping or list is used as a key", "use text or a whole number as key")
            path = (*top.path, top.key) if top.is_map else (*top.path, Index(len(top.data)))
        if event.anchor:
            self.open_anchors.add(event.anchor)
            self.anchors.pop(event.anchor, None)
        self.lines.setdefault(path, line)
        self.stack.append(_Collection(is_map, path, event.anchor))

    def _close(self, line: int) -> None:
        done = self.stack.pop()
        if done.anchor:
            self.open_anchors.discard(done.anchor)
            self.anchors[done.anchor] = (done.data, done.nodes)
        self._add(done.data, done.nodes, self.lines.get(done.path, line))

    def _alias(self, name: str, line: int) -> None:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            self.stop(line, f"more than {MAX_ALIASES} aliases (*{name})", "write the values out")
        if name in self.open_anchors:
            self.stop(line, f"the alias *{name} contains itself", "write the values out")
        if name not in self.anchors:
            self.stop(
                line,
                f"the alias *{name} has no anchor &{name} before it",
                "define it, or write the value out",
            )
        value, nodes = self.anchors[name]
        self._add(value, nodes, line)

    def _add(self, value: object, nodes: int, line: int) -> None:
        if not self.stack:
            self.root = value
            self.lines.setdefault((), line)
            return
        top = self.stack[-1]
        top.nodes += nodes
        if top.nodes > MAX_NODES:
            self.stop(line, f"more than {MAX_NODES} values once aliases are followed", "write a smaller file")
        if not top.is_map:
            self.lines[(*top.path, Index(len(top.data)))] = line
            top.data.append(value)
        elif top.key is _DIFFERENT:
            self._take_key(top, value, line)
        else:
            top.data[top.key] = value
            top.key = _DIFFERENT

    def _take_key(self, top: _Collection, key: object, line: int) -> None:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            shown = "an empty key" if key is None else f"the key {key!r}"
            self.fault(line, show_path(top.path), f"found {shown}", "use text or a whole number as key")
            key = str(key)
        text = str(key)
        if text in top.seen:
            path = show_path((*top.path, key))
            self.fault(
                line, path, f"the key is there already in line {top.seen[text]}", "keep one of the two"
            )
        top.seen.setdefault(text, line)
        top.key, top.key_line = key, line
        self.lines.setdefault((*top.path, key), line)


def show_path(path: tuple) -> str:
    """``tests.BIAS01.obsids[1]``; list places are `Index`."""
    text = ""
    for part in path:
        text += f"[{int(part)}]" if isinstance(part, Index) else (f".{part}" if text else str(part))
    return text


def parse_yaml(text: str, file: Path | str = "<text>", keep_faults: bool = False) -> Document:
    """`read_yaml` of a string."""
    import yaml

    if len(text) > MAX_BYTES:
        raise ConfigError(
            file, None, "", f"larger than {MAX_BYTES // 1000} kB", "split it or remove what is not needed"
        )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader(file)
    take = reader.take
    faults: list[ConfigError] = []
    try:
        for event in yaml.parse(text, Loader=loader):
            take(event)
    except yaml.YAMLError as error:
        faults = [_syntax_error(error, file)]
    if faults or not keep_faults:
        raise_all([*reader.faults, *faults])
    return Document(reader.root, reader.lines, Path(file), reader.faults)


def _syntax_error(error, file) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    message = f"not valid YAML: {context + ': ' if context else ''}{problem}"
    remedy = (
        "check indentation (blanks, not tabs), colons followed by a blank, and closed quotes and brackets"
    )
    return ConfigError(file, mark.line + 1 if mark else None, "", message, remedy)


def read_yaml(path: Path | str, keep_faults: bool = False) -> Document:
    """Read a YAML file within limits.

    Parameters
    ----------
    path : path
        At most 1 MB of UTF-8, 32 aliases, 20 levels, one document.
    keep_faults : bool
        Faults of single keys (duplicate, read in two ways) go to ``Document.faults`` instead of being
        raised, so that they can be told together with those of a model.

    Returns
    -------
    Document
        Plain data, and the line of every key.

    Raises
    ------
    ConfigError, ConfigErrors
        With file, line, key and what to do; all faults that can be told at once.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(path, None, "", "no such file", "check the path") from None
    except OSError as error:
        raise ConfigError(
            path, None, "", f"cannot be read: {error.strerror}", "check path and permissions"
        ) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            path, None, "", f"larger than {MAX_BYTES // 1000} kB", "split it or remove what is not needed"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(path, line, "", "not UTF-8 text", "save the file as UTF-8") from None
    return parse_yaml(text, path, keep_faults)


# ---- writing -------------------------------------------------------------------------------------
def plain_float(value: float) -> str:
    """A float as YAML 1.1 and 1.2 both read it: with a point, and a sign in the exponent."""
    if value != value:
        return ".nan"
    if value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    mantissa = mantissa if "." in mantissa else mantissa + ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def needs_quotes(text: str) -> bool:
    """Whether a string must be quoted to stay a string for all readers."""
    value = resolve_plain(text)
    return not (isinstance(value, str) and value == text)


def dump_yaml(data: object, comment: str = "") -> str:
    """YAML text of plain data, that every reader understands the same; `comment` heads it."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    def text(dumper, value):
        style = '"' if needs_quotes(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    Dumper.add_representer(
        float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", plain_float(value))
    )
    Dumper.add_multi_representer(Path, lambda dumper, value: text(dumper, str(value)))
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


#: Given to `edit_yaml` as a value: take the key out.
DELETE = object()


def edit_yaml(path: Path | str, changes: Mapping) -> None:
    """Change values of a YAML file and keep its comments, order and layout.

    Parameters
    ----------
    path : path
        The file; it is replaced atomically.
    changes : mapping
        From the path of a key, a tuple such as ``("tests", "BIAS02.2", "obsids")`` or a text
        without dots in its parts (``"wait.poll_s"``), to its new value, or to `DELETE`. Missing
        mappings on the way are made.
    """
    import io

    path = Path(path)
    read_yaml(path)  # the same refusals as everywhere, with lines
    source = path.read_text(encoding="utf-8-sig")
    yaml = _editor()
    if re.search(r":[ \t]*(?:#.*)?\n[ ]+- ", source):  # lists are indented below their key
        yaml.indent(mapping=2, sequence=4, offset=2)
    data = yaml.load(source)
    for key, value in changes.items():
        parts = tuple(key.split(".")) if isinstance(key, str) else tuple(key)
        _set(data, parts, value, path)
    out = io.StringIO()
    yaml.dump(data, out)
    parse_yaml(out.getvalue(), path)
    _replace(path, out.getvalue())


def _editor():
    """ruamel's round trip, with null and floats written so that all readers agree."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        pass

    Representer.add_representer(
        float, lambda rep, value: rep.represent_scalar("tag:yaml.org,2002:float", plain_float(value))
    )
    Representer.add_representer(
        type(None), lambda rep, value: rep.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _set(data, parts: tuple, value: object, file: Path) -> None:
    here = data
    for count, part in enumerate(parts[:-1]):
        missing = (
            part not in here if isinstance(here, dict) else not (isinstance(part, int) and part < len(here))
        )
        if missing or here[part] is None:
            if value is DELETE:
                return
            here[part] = {}
        here = here[part]
        if not isinstance(here, (dict, list)):
            raise ConfigError(
                file, None, show_path(parts[: count + 1]), "is not a mapping", "edit the file by hand"
            )
    if value is DELETE:
        if isinstance(here, dict):
            here.pop(parts[-1], None)
        return
    if isinstance(here, list) and parts[-1] == len(here):
        here.append(_writable(value))  # one past the end: a new item
        return
    here[parts[-1]] = _writable(value)


def _writable(value: object) -> object:
    """`value` with strings quoted where a reader could take them for something else, short lists in flow style."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, str):
        return DoubleQuotedScalarString(value) if needs_quotes(value) else value
    if isinstance(value, Path):
        return _writable(str(value))
    if isinstance(value, Mapping):
        result = CommentedMap((_writable(key), _writable(item)) for key, item in value.items())
        return result
    if isinstance(value, (list, tuple)):
        result = CommentedSeq(_writable(item) for item in value)
        if all(not isinstance(item, (dict, list)) for item in result):
            result.fa.set_flow_style()
        return result
    return value


def _replace(path: Path, text: str) -> None:
    """Write beside, sync, rename: a reader sees the old or the new file, never a part."""
    target = path.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(part, target.stat().st_mode & 0o777)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
