"""FITS files of calcamp's products: images and tables with units, provenance and checksums.

A product has a primary header without data (the meta data), then named images, then tables. Images are
written and read here; tables go through astropy. Every HDU carries CHECKSUM and DATASUM, and reading
compares the file with them.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import calcamp
from calcamp.data import fitsblocks as blocks
from calcamp.data.files import InputError, plain, replacing

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 400_000_000  # of one image: more is no product of one CCD
_CHUNK = 1 << 17
_BITPIX = {"uint8": 8, "int16": 16, "int32": 32, "int64": 64, "float32": -32, "float64": -64}
_TYPES = {bitpix: name for name, bitpix in _BITPIX.items()}
#: Unsigned types are stored signed with an offset (FITS 4.0, 4.4.2.5).
_OFFSETS = {"uint16": (16, 32768), "uint32": (32, 2147483648)}
_STRUCTURE = (
    "SIMPLE",
    "XTENSION",
    "BITPIX",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "NAXIS3",
    "PCOUNT",
    "GCOUNT",
    "EXTEND",
)
_OWN_KEYS = frozenset((*_STRUCTURE, "BZERO", "BSCALE", "END", "CHECKSUM", "DATASUM"))

Image = tuple  # (extname, array, unit, extra header)


# ---- writing -------------------------------------------------------------------------------------
def write_product(
    path: Path | str,
    header: Mapping[str, object],
    images: Iterable[Image] = (),
    tables: Iterable[tuple] = (),
) -> Path:
    """Write a FITS product, atomically.

    Parameters
    ----------
    path : ``….fits``.
    header : cards of the primary header: keyword -> value, or (value, comment). None is a keyword without
        value, lists and mappings become JSON text, NaN is not measured. ``CREATOR`` is added.
    images : (extname, array, unit, extra header); unit and extra header may be left out. Two or more axes,
        booleans, unsigned 8, 16 and 32 bit, signed integers and floats.
    tables : (extname, columns, units); units may be left out.

    Returns
    -------
    The path. Every HDU has CHECKSUM and DATASUM.
    """
    with replacing(path) as stream:
        stream.write(_primary(header))
        for name, array, *rest in images:
            unit, extra = (*rest, "", None)[:2] if len(rest) < 2 else rest[:2]
            _write_image(stream, name, array, unit, extra or {})
        for name, columns, *rest in tables:
            stream.write(_table_bytes(name, columns, rest[0] if rest else {}))
    return Path(path)


def _primary(header: Mapping[str, object]) -> bytes:
    cards = [
        blocks.card("SIMPLE", True, "conforms to FITS standard"),
        blocks.card("BITPIX", 8),
        blocks.card("NAXIS", 0),
    ]
    cards.append(blocks.card("EXTEND", True))
    merged = {"EXTNAME": "META", "CREATOR": f"calcamp {calcamp.__version__}"} | {
        k.upper(): v for k, v in header.items()
    }
    return blocks.with_checksum(cards + _user_cards(merged), 0)


def _user_cards(header: Mapping[str, object]) -> list[str]:
    cards = []
    for key, value in header.items():
        if key.upper() in _OWN_KEYS:
            continue
        value, comment = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
        if key.upper() in ("COMMENT", "HISTORY") and isinstance(value, list | tuple):
            cards.extend(blocks.card(key, str(line)) for line in value)
            continue
        value = plain(value)
        if isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=True)
        cards.append(blocks.card(key, value, comment))
    return cards


def _write_image(stream, name: str, array: np.ndarray, unit: str, extra: Mapping[str, object]) -> None:
    """One image HDU. The header needs the sum of the data, so it is written last, in its place."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    kind = array.dtype.name
    if array.ndim < 1 or (kind not in _BITPIX and kind not in _OFFSETS):
        raise ValueError(f"image {name}: {kind} with {array.ndim} axes cannot be written to FITS")
    bitpix, zero = _OFFSETS.get(kind, (_BITPIX.get(kind), 0))
    cards = [blocks.card("XTENSION", "IMAGE", "image extension"), blocks.card("BITPIX", bitpix)]
    cards.append(blocks.card("NAXIS", array.ndim))
    cards += [blocks.card(f"NAXIS{n}", length) for n, length in enumerate(reversed(array.shape), start=1)]
    cards += [blocks.card("PCOUNT", 0), blocks.card("GCOUNT", 1)]
    if zero:
        cards += [blocks.card("BSCALE", 1), blocks.card("BZERO", zero, "unsigned integers")]
    cards.append(blocks.card("EXTNAME", name))
    if unit:
        cards.append(blocks.card("BUNIT", unit))
    cards += _user_cards({k: v for k, v in extra.items() if k.upper() not in ("EXTNAME", "BUNIT")})
    start = stream.tell()
    room = len(blocks.with_checksum(cards, 0))
    stream.seek(start + room)
    total = _write_pixels(stream, array, zero)
    end = stream.tell()
    stream.seek(start)
    stream.write(blocks.with_checksum(cards, total))
    stream.seek(end)


def _write_pixels(stream, array: np.ndarray, zero: int) -> int:
    """Write pixels big-endian, padded; their 32-bit sum."""
    import numpy as np

    flat = np.ascontiguousarray(array).reshape(-1)
    big = flat.dtype.newbyteorder(">")
    total = 0
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        if zero:  # flipping the top bit is subtracting the offset
            part = part ^ part.dtype.type(zero)
        data = part.astype(big).tobytes()
        total += blocks.word_sum(data)
        stream.write(data)
    stream.write(bytes(blocks.padded(flat.nbytes) - flat.nbytes))
    return blocks.fold(total)


def _table_bytes(name: str, columns: Mapping[str, Sequence], units: Mapping[str, str]) -> bytes:
    import numpy as np
    from astropy.io import fits
    from astropy.table import Table

    from calcamp.data.tables import unit_text

    table = Table({key: np.asarray(values) for key, values in columns.items()})
    hdu = fits.BinTableHDU(table, name=name)
    for number, key in enumerate(table.colnames, start=1):
        if units.get(key):  # as text: FITS has no name for electrons, every reader has one for the text
            hdu.header[f"TUNIT{number}"] = unit_text(units[key])
    whole = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(whole, checksum=True)
    return whole.getvalue()[blocks.BLOCK :]


# ---- reading -------------------------------------------------------------------------------------
def read_image(path: Path | str, extname: str | None = None, verify: bool = True) -> tuple[np.ndarray, dict]:
    """An image of a FITS file and its header.

    Parameters
    ----------
    path : uncompressed FITS file.
    extname : name of the extension, in any case; None takes the last image.
    verify : compare header and data with DATASUM and CHECKSUM where there are any.

    Returns
    -------
    (array [row, column] in native byte order, header). Unsigned integers come back unsigned; other scaled
    integers as float64.

    Raises
    ------
    InputError : the file is missing, damaged, compressed, or has no such image.
    """
    path = Path(path)
    with _Reader(path) as reader:
        images = [hdu for hdu in reader.hdus if hdu.is_image]
        wanted = [hdu for hdu in images if extname is None or hdu.name.upper() == extname.upper()]
        if not wanted:
            names = ", ".join(hdu.name or f"number {hdu.index}" for hdu in images) or "no images"
            raise InputError(
                f"has no image {extname or ''}".rstrip(),
                file=path,
                expected=f"one of: {names}" if images else "an image",
            )
        return reader.pixels(wanted[-1], verify), wanted[-1].header


def read_header(path: Path | str, extname: str | int = 0) -> dict:
    """Header of an HDU by number or name; the primary by default. `InputError` as `read_image`."""
    with _Reader(Path(path)) as reader:
        for hdu in reader.hdus:
            if hdu.index == extname or (isinstance(extname, str) and hdu.name.upper() == extname.upper()):
                return hdu.header
        raise InputError(f"has no extension {extname}", file=path)


def extensions(path: Path | str) -> list[tuple[str, dict]]:
    """(name, header) of every HDU. `InputError` as `read_image`."""
    with _Reader(Path(path)) as reader:
        return [(hdu.name, hdu.header) for hdu in reader.hdus]


def read_fits_table(path: Path | str, extname: str) -> dict[str, list]:
    """Columns of a binary table of a product as plain lists, blanks of texts stripped."""
    from astropy.io import fits

    path = Path(path)
    read_header(path, extname)  # the file is whole and has it
    try:
        with fits.open(path, memmap=False, checksum=False) as hdus:
            data = hdus[extname].data
            columns = {name: data[name].tolist() for name in data.names}
    except Exception as error:  # whatever a damaged table makes of the library
        raise InputError(f"table {extname} cannot be read ({error})", file=path) from error
    return {
        name: [v.rstrip() if isinstance(v, str) else v for v in values] for name, values in columns.items()
    }


class _Reader:
    """An uncompressed FITS file, scanned, open for reading pixels."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.stream = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})", file=path, remedy="Check the path of the product"
            ) from error

    def __enter__(self) -> _Reader:
        try:
            status = os.fstat(self.stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("is not a regular file", file=self.path, expected="a FITS file")
            if self._read_at(0, 2) == b"\x1f\x8b":
                raise InputError(
                    "is compressed",
                    file=self.path,
                    expected="a plain FITS file",
                    remedy="Unpack it with gunzip",
                )
            self.hdus = blocks.scan(self._read_at, status.st_size)
        except blocks.FitsError as error:
            self.stream.close()
            raise InputError(
                f"is not a usable FITS file ({error.text})",
                file=self.path,
                remedy="Copy it again from where it was made",
            ) from error
        except BaseException:
            self.stream.close()
            raise
        return self

    def __exit__(self, *_):
        self.stream.close()

    def _read_at(self, offset: int, count: int) -> bytes:
        self.stream.seek(offset)
        return self.stream.read(count)

    def pixels(self, hdu: blocks.HDU, verify: bool) -> np.ndarray:
        """Data of an image HDU, chunk by chunk, compared with DATASUM."""
        import numpy as np

        header, shape = hdu.header, hdu.axes[::-1]
        if hdu.data_size > 8 * MAX_PIXELS or header.get("PCOUNT", 0) or header.get("GCOUNT", 1) != 1:
            raise InputError(f"image {hdu.name} is not an image of a CCD", file=self.path)
        if not all(isinstance(header.get(key, 0), int | float) for key in ("BSCALE", "BZERO")):
            raise InputError(
                f"image {hdu.name} has no valid scaling",
                file=self.path,
                expected="numbers in BSCALE and BZERO",
            )
        stored = np.dtype(_TYPES[header["BITPIX"]])
        unsigned = self._unsigned(header)
        out = np.empty(hdu.data_size // stored.itemsize, unsigned or stored)
        verify, total = verify and blocks.has_checksum(header), 0
        self.stream.seek(hdu.data_offset)
        for start in range(0, out.size, _CHUNK):
            part = out[start : start + _CHUNK]
            data = self.stream.read(part.nbytes)
            if len(data) != part.nbytes:
                raise InputError("became shorter while it was read", file=self.path)
            if verify:
                total += blocks.word_sum(data)
            part[...] = np.frombuffer(data, stored.newbyteorder(">")).view(part.dtype.newbyteorder(">"))
            if unsigned:
                part ^= part.dtype.type(_OFFSETS[unsigned][1])
        if verify and not blocks.agrees(hdu, blocks.fold(total), self._read_at):
            raise InputError(
                f"image {hdu.name} does not agree with its checksum: the file is damaged",
                file=self.path,
                remedy="Copy it again, or make the product anew",
            )
        out = out.reshape(shape)
        return out if unsigned else _scaled(out, header)

    @staticmethod
    def _unsigned(header: Mapping) -> str | None:
        """uint16 or uint32 when the scaling says so."""
        if header.get("BSCALE", 1) != 1:
            return None
        wanted = (header["BITPIX"], header.get("BZERO", 0))
        return next((name for name, stored in _OFFSETS.items() if stored == wanted), None)


def _scaled(array: np.ndarray, header: Mapping) -> np.ndarray:
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    if scale == 1 and zero == 0:
        return array
    return array * float(scale) + float(zero)
