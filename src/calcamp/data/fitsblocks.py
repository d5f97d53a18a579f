"""FITS at the level of blocks: headers parsed and made, HDUs found, checksums. Standard library only.

Raw frames and products are plain images, and importing a whole FITS library costs more than reading
one. What is read here is checked against the size of the file before any data are touched, so that a
broken or hostile file ends in a `FitsError`, never in a crash, a hang or an empty array. Tables and
compressed images are left to astropy.

Source of the rules: FITS standard 4.0 (headers, 4; checksum, 4.4.2.7 and appendix J; CONTINUE, 4.2.1.2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

BLOCK = 2880
CARD = 80
MAX_HEADER_BLOCKS = 400
MAX_HDUS = 400
BITPIX = frozenset((8, 16, 32, 64, -32, -64))

_INT = re.compile(r"[+-]?\d{1,25}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[EeDd][+-]?\d{1,4})?", re.ASCII)
_KEY = re.compile(r"[A-Z0-9_-]{1,8}", re.ASCII)
_COMMENTARY = ("COMMENT", "HISTORY", "")


class FitsError(Exception):
    """A FITS file that cannot be used. ``kind`` is ``truncated`` or ``unreadable``."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True)
class HDU:
    """One header and where its data are."""

    index: int
    header: dict[str, object]
    header_offset: int
    data_offset: int
    data_size: int  # bytes, without padding

    @property
    def end(self) -> int:
        """First byte after the padded data."""
        return self.data_offset + padded(self.data_size)

    @property
    def name(self) -> str:
        return str(self.header.get("EXTNAME", "")).strip()

    @property
    def axes(self) -> tuple[int, ...]:
        """(NAXIS1, NAXIS2, …)."""
        return tuple(self.header[f"NAXIS{n}"] for n in range(1, self.header["NAXIS"] + 1))

    @property
    def is_image(self) -> bool:
        """An image with pixels, uncompressed."""
        kind = str(self.header.get("XTENSION", "IMAGE")).strip()
        return kind in ("IMAGE", "") and self.data_size > 0

    @property
    def is_compressed_image(self) -> bool:
        return (
            self.header.get("ZIMAGE") is True and str(self.header.get("XTENSION", "")).strip() == "BINTABLE"
        )


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


# ---- reading -------------------------------------------------------------------------------------
def scan(read_at: Callable[[int, int], bytes], size: int) -> list[HDU]:
    """All HDUs of a FITS file.

    Parameters
    ----------
    read_at : ``read_at(offset, n)`` returns up to n bytes.
    size : bytes of the file. The last HDU may lack its padding, nothing else.

    Raises
    ------
    FitsError : ``truncated`` when a header or its data are cut short, ``unreadable`` when it is no FITS file.
    """
    if size == 0:
        raise FitsError("truncated", "the file is empty")
    found: list[HDU] = []
    offset = 0
    while offset < size:
        start = read_at(offset, CARD)
        wanted = b"XTENSION=" if found else b"SIMPLE  ="
        if not start.startswith(wanted):
            if wanted.startswith(start):
                raise FitsError("truncated", f"the file ends inside header {len(found)}")
            if found and size - offset < 64 * BLOCK and not read_at(offset, size - offset).strip(b"\0 "):
                break  # filler after the last HDU
            raise FitsError(
                "unreadable", "not a FITS file" if not found else "other bytes follow the last extension"
            )
        header, data_offset = _read_header(read_at, offset, size, len(found))
        data_size = _data_size(header, len(found))
        if data_offset + data_size > size:
            raise FitsError(
                "truncated", f"{size} bytes, extension {len(found)} needs {padded(data_offset + data_size)}"
            )
        found.append(HDU(len(found), header, offset, data_offset, data_size))
        offset = found[-1].end
        if len(found) > MAX_HDUS:
            raise FitsError("unreadable", f"more than {MAX_HDUS} extensions")
    return found


def _read_header(read_at, offset: int, size: int, index: int) -> tuple[dict, int]:
    cards: list[str] = []
    for number in range(MAX_HEADER_BLOCKS):
        block = read_at(offset + number * BLOCK, BLOCK)
        if len(block) < BLOCK:
            raise FitsError("truncated", f"the file ends inside header {index}")
        text = block.decode("latin-1")
        for start in range(0, BLOCK, CARD):
            card = text[start : start + CARD]
            if card.startswith("END") and not card[3:].strip():
                return _parse_cards(cards, index), offset + (number + 1) * BLOCK
            cards.append(card)
    raise FitsError("unreadable", f"header {index} has no END in {MAX_HEADER_BLOCKS} blocks")


def _parse_cards(cards: list[str], index: int) -> dict[str, object]:
    """Header as a dictionary; COMMENT and HISTORY are lists of their lines. A repeated key counts once, first."""
    header: dict[str, object] = {}
    last: str | None = None
    for card in cards:
        if not (card.isascii() and card.isprintable()):
            raise FitsError("unreadable", f"header {index} holds bytes that are not text")
        key = card[:8].rstrip()
        if key in ("COMMENT", "HISTORY"):
            header.setdefault(key, []).append(card[8:].rstrip())
        elif key == "CONTINUE":
            more = _value(card[8:])
            if (
                last
                and isinstance(header[last], str)
                and header[last].endswith("&")
                and isinstance(more, str)
            ):
                header[last] = header[last][:-1] + more
            continue
        elif key == "HIERARCH" and "=" in card:
            key, _, value = card[8:].partition("=")
            key = " ".join(key.split())
            header.setdefault(key, _value(value))
        elif card[8:10] == "= " or card[8:9] == "=":
            if not _KEY.fullmatch(key):
                raise FitsError("unreadable", f"header {index} has the keyword {key!r}")
            if key in header and key in _STRUCTURE:
                raise FitsError("unreadable", f"header {index} has {key} twice")
            header.setdefault(key, _value(card[9:]))
        last = key if isinstance(header.get(key), str) else None
    return header


_STRUCTURE = frozenset(
    ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "BZERO", "BSCALE", "ZNAXIS1", "ZNAXIS2")
)


def _value(text: str) -> object:
    """Value of a card: str, bool, int, float or None; what is none of these stays text."""
    text = text.strip()
    if text.startswith("'"):
        end, parts = 1, []
        while True:
            stop = text.find("'", end)
            if stop < 0:  # closing quote missing: take the rest
                return ("".join(parts) + text[end:]).rstrip()
            parts.append(text[end:stop])
            if text[stop + 1 : stop + 2] != "'":
                return "".join(parts).rstrip()
            parts.append("'")
            end = stop + 2
    text = text.partition("/")[0].strip()
    if not text:
        return None
    if text in ("T", "F"):
        return text == "T"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.upper().replace("D", "E"))
    return text


def _data_size(header: dict, index: int) -> int:
    """Bytes of the data that follow a header, without padding."""
    numbers = {name: header.get(name, 0 if name == "PCOUNT" else 1) for name in ("PCOUNT", "GCOUNT")}
    axes = header.get("NAXIS")
    if header.get("BITPIX") not in BITPIX or not _is_count(axes, 999):
        raise FitsError("unreadable", f"header {index} has no valid BITPIX and NAXIS")
    lengths = [header.get(f"NAXIS{n}") for n in range(1, axes + 1)]
    if not all(_is_count(length, 2**40) for length in [*lengths, *numbers.values()]):
        raise FitsError("unreadable", f"header {index} has no valid axis lengths")
    if header.get("GROUPS") is True:
        raise FitsError("unreadable", f"header {index} describes random groups")
    if not lengths:
        return 0
    return abs(header["BITPIX"]) // 8 * numbers["GCOUNT"] * (numbers["PCOUNT"] + math.prod(lengths))


def _is_count(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


# ---- writing -------------------------------------------------------------------------------------
def card(key: str, value: object, comment: str = "") -> str:
    """One keyword as 80 characters, or several with CONTINUE for a long text.

    Keywords of more than 8 characters become HIERARCH cards. Text outside ASCII is written with ``?``.
    """
    key = key.upper().strip()
    if key in ("COMMENT", "HISTORY"):
        return "".join(f"{key:8}{piece}".ljust(CARD) for piece in _pieces(_ascii(str(value)), CARD - 8))
    lead = f"{key:8}= " if _KEY.fullmatch(key) else f"HIERARCH {key} = "
    if not _KEY.fullmatch(key) and not re.fullmatch(r"[A-Z0-9_ .-]{1,50}", key):
        raise ValueError(f"not a FITS keyword: {key!r}")
    if isinstance(value, str):
        return _text_card(lead, value, _ascii(comment))
    text = f"{lead}{_number_text(value):>20}"
    if comment and len(text) + 3 < CARD:
        text += f" / {_ascii(comment)}"
    return text[:CARD].ljust(CARD)


def _number_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return "T" if value else "F"
    if isinstance(value, int) or hasattr(value, "__index__"):
        return str(int(value))
    value = float(value)
    if not math.isfinite(value):
        return ""  # not measured: a keyword without value
    text = repr(value).upper()
    return text if "." in text or "E" not in text else text.replace("E", ".0E")


def _text_card(lead: str, value: str, comment: str) -> str:
    text = _ascii(value).rstrip().replace("'", "''")
    if len(lead) + len(text) + 2 <= CARD:
        quoted = f"'{text:8}'"
        line = f"{lead}{quoted:20}"
        if comment and len(line) + 3 < CARD:
            line += f" / {comment}"
        return line[:CARD].ljust(CARD)
    lines, room = [], CARD - len(lead) - 3
    while text:
        piece, rest = text[:room], text[room:]
        if rest and (len(piece) - len(piece.rstrip("'"))) % 2:  # do not cut a doubled quote in two
            piece, rest = text[: room - 1], text[room - 1 :]
        start = lead if not lines else "CONTINUE  "
        lines.append(f"{start}'{piece}{'&' if rest else ''}'".ljust(CARD))
        text, room = rest, CARD - 10 - 3
    return "".join(lines)


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _pieces(text: str, width: int) -> list[str]:
    return [text[i : i + width] for i in range(0, len(text), width)] or [""]


def header_bytes(cards: Iterable[str]) -> bytes:
    """Header block(s): the cards, END, blanks to a whole block."""
    text = "".join(cards) + "END".ljust(CARD)
    return text.ljust(padded(len(text))).encode("ascii")


# ---- checksum ------------------------------------------------------------------------------------
def fold(total: int) -> int:
    """Sum of 32-bit words as the ones'-complement 32-bit sum."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def word_sum(data: bytes | memoryview) -> int:
    """Ones'-complement sum of `data` as big-endian 32-bit words; a short last word is padded with zeros."""
    import numpy as np

    view = memoryview(data).cast("B")
    whole = len(view) // 4 * 4
    total = 0
    for start in range(0, whole, 1 << 20):
        total += int(np.frombuffer(view[start : min(start + (1 << 20), whole)], ">u4").sum(dtype=np.uint64))
    if whole < len(view):
        total += int.from_bytes(bytes(view[whole:]).ljust(4, b"\0"), "big")
    return fold(total)


def encode_checksum(total: int) -> str:
    """The 16 characters of a CHECKSUM card for a 32-bit sum, complemented (FITS 4.0, appendix J)."""
    value = 0xFFFFFFFF - total
    columns = []
    for shift in (24, 16, 8, 0):
        byte = value >> shift & 0xFF
        quotient, remainder = divmod(byte, 4)
        four = [quotient + remainder + 0x30] + [quotient + 0x30] * 3
        while any(0x3A <= c <= 0x40 or 0x5B <= c <= 0x60 for c in four):
            for i in (0, 2):
                if any(0x3A <= c <= 0x40 or 0x5B <= c <= 0x60 for c in four[i : i + 2]):
                    four[i] += 1
                    four[i + 1] -= 1
        columns.append(four)
    text = "".join(chr(columns[i][j]) for j in range(4) for i in range(4))
    return text[-1] + text[:-1]


def with_checksum(cards: list[str], data_sum: int) -> bytes:
    """Header of an HDU with DATASUM and CHECKSUM cards for data of sum `data_sum`."""
    cards = [*cards, card("DATASUM", str(data_sum), "data unit checksum")]
    blank = header_bytes([*cards, card("CHECKSUM", "0" * 16, "HDU checksum")])
    text = encode_checksum(fold(word_sum(blank) + data_sum))
    return header_bytes([*cards, card("CHECKSUM", text, "HDU checksum")])


def has_checksum(header: dict) -> bool:
    """Whether a header carries DATASUM or CHECKSUM."""
    return any(str(header.get(key) or "").strip() for key in ("DATASUM", "CHECKSUM"))


def agrees(hdu: HDU, data_sum: int, read_at: Callable[[int, int], bytes]) -> bool:
    """Whether data of sum `data_sum` and the header are those that DATASUM and CHECKSUM were made for.

    A keyword that is absent is not checked.
    """
    text = str(hdu.header.get("DATASUM") or "").strip()
    if text and text != str(data_sum):
        return False
    if not str(hdu.header.get("CHECKSUM") or "").strip():
        return True
    head = read_at(hdu.header_offset, hdu.data_offset - hdu.header_offset)
    return fold(word_sum(head) + data_sum) == 0xFFFFFFFF
