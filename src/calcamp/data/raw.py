"""Raw frames of ELVIS: found, checked, read and written.

A frame is one FITS file per OBSID and CCD: a primary header without data and one 16-bit image. The
usual case, uncompressed, is read straight into memory; gzip and tile-compressed files (RICE_1, GZIP_1,
GZIP_2) are checked against the detector before anything is decoded. numpy and astropy are imported
where they are needed.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calcamp.data import elvis
from calcamp.data.files import replacing
from calcamp.data.fitsblocks import (
    BLOCK,
    HDU,
    FitsError,
    agrees,
    card,
    fold,
    has_checksum,
    header_bytes,
    padded,
    scan,
    word_sum,
)
from calcamp.data.names import RAW_RE
from calcamp.detector.geometry import Detector

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
KINDS = ("missing", "truncated", "shape", "unreadable", "compression")
COMPRESSIONS = ("RICE_1", "GZIP_1", "GZIP_2")
_CHUNK = 1 << 16  # pixels converted at a time: fits the second-level cache
_HEADER_ROOM = 256 * BLOCK  # bytes of headers and padding that a frame may have beside its pixels
_TABLE_KEYS = ("XTENSION", "TFIELDS", "TTYPE1", "TFORM1", "PCOUNT", "GCOUNT", "THEAP", "CHECKSUM", "DATASUM")


class RawError(Exception):
    """A raw frame that cannot be used.

    ``kind`` is ``missing`` (no such file), ``truncated`` (shorter than its headers promise, perhaps still
    being written), ``shape`` (not this detector), ``compression`` (a way that calcamp does not decode) or
    ``unreadable`` (anything else).
    """

    def __init__(self, kind: str, text: str, path: Path | str | None = None):
        super().__init__(f"{path}: {text}" if path else text)
        self.kind = kind
        self.text = text
        self.path = None if path is None else str(path)

    def __reduce__(self):
        return type(self), (self.kind, self.text, self.path)


@dataclass(frozen=True)
class Raw:
    """A raw frame: ``data`` uint16 [row, column] in stored orientation, ``header`` of the image."""

    data: np.ndarray
    header: dict
    path: Path


# ---- finding -------------------------------------------------------------------------------------
def find_raw(folder: Path | str, file_name: str) -> Path | None:
    """File of a frame named in the EXP-LOG, plain first, then gzip, then tile-compressed; None if absent.

    `file_name` has no extension. The old form of the stamp (``D_`` for ``D``) is tried as well.
    """
    if not file_name or Path(file_name).name != file_name:
        return None
    for stem in _spellings(file_name.removesuffix(".fits")):
        for suffix in SUFFIXES:
            path = Path(folder) / (stem + suffix)
            if path.is_file():
                return path
    return None


def _spellings(stem: str) -> tuple[str, ...]:
    """A stem and its other spelling of the time stamp."""
    match = RAW_RE.fullmatch(stem + ".fits")
    if not match:
        return (stem,)
    stamp = match["stamp"]
    other = stamp.replace("_", "") if "_" in stamp else stamp[:7] + "_" + stamp[7:]
    return stem, stem.replace(stamp, other)


# ---- reading -------------------------------------------------------------------------------------
def read_raw(
    path: Path | str,
    detector: Detector | None = None,
    verify: bool = True,
    out: np.ndarray | None = None,
) -> Raw:
    """Read a raw frame.

    Parameters
    ----------
    path : the file; its first bytes say how it is compressed, not its name.
    detector : the shape must be ``detector.ccd_shape``. None takes any shape up to 64 million pixels.
    verify : compare DATASUM and CHECKSUM where the header has them.
    out : uint16 array of the frame's shape, contiguous; pixels of an uncompressed file are put there and the array is
        the data that is returned. The memory of a frame costs as much as its pixels when it is new each time.

    Returns
    -------
    Raw with uint16 data, 0 lost or not read, 65535 saturated.

    Raises
    ------
    RawError : see there. No other exception leaves this function for a bad file.
    """
    path = Path(path)
    with _opened(path) as handle:
        try:
            if handle.compressed:
                return _read_memory(_gunzip(handle, detector), path, detector, verify)
            hdu = _image_hdu(scan(handle.read_at, handle.size), detector)
            if hdu.is_compressed_image:
                return _read_memory(handle.read_all(_limit(detector)), path, detector, verify)
            return Raw(_read_pixels(handle, hdu, verify, out), hdu.header, path)
        except FitsError as error:
            raise RawError(error.kind, error.text, path) from error
        except RawError as error:
            raise RawError(error.kind, error.text, path) from error
        except OSError as error:
            raise RawError("unreadable", f"cannot be read ({error.strerror})", path) from error


def open_raw(path: Path | str, detector: Detector) -> Raw:
    """A frame of which only parts are wanted: ``data[rows, columns]`` reads those rows alone.

    For spots: twenty stamps are a fifth of a frame's bytes, and most of the time goes into the rest. Size and
    shape are checked, checksums are not (they need all pixels; the check of the test reads them). Compressed
    files are read as a whole.

    Raises
    ------
    RawError : as `read_raw`, also later, when a part cannot be read.
    """
    path = Path(path)
    with _opened(path) as handle:
        try:
            if not handle.compressed:
                hdu = _image_hdu(scan(handle.read_at, handle.size), detector)
                if not hdu.is_compressed_image:
                    return Raw(Parts(path, hdu.axes[::-1], hdu.data_offset), hdu.header, path)
        except (FitsError, RawError) as error:
            raise RawError(error.kind, error.text, path) from error
        except OSError as error:
            raise RawError("unreadable", f"cannot be read ({error.strerror})", path) from error
    return read_raw(path, detector)


@dataclass(frozen=True)
class Parts:
    """Pixels of an uncompressed frame, read when they are asked for: ``parts[slice rows, slice columns]``."""

    path: Path
    shape: tuple[int, int]
    offset: int

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        import numpy as np

        rows, columns = (range(*part.indices(size)) for part, size in zip(key, self.shape, strict=True))
        if rows.step != 1:
            raise ValueError("rows are read one after the other")
        if not (rows and columns):
            return np.empty((len(rows), len(columns)), np.uint16)
        band = np.empty((len(rows), self.shape[1]), ">u2")
        with _opened(self.path) as handle:
            try:
                handle.read_into(self.offset + 2 * self.shape[1] * rows.start, memoryview(band).cast("B"))
            except FitsError as error:
                raise RawError(error.kind, error.text, self.path) from error
            except OSError as error:
                raise RawError("unreadable", f"cannot be read ({error.strerror})", self.path) from error
        # see `_read_pixels` on the top bit
        return np.bitwise_xor(band[:, key[1]], np.uint16(0x8000), dtype=np.uint16)


def check_raw(path: Path | str, detector: Detector | None = None) -> dict:
    """Header of a frame after checking size and shape; no pixel is read, except to unpack gzip.

    Raises
    ------
    RawError : as `read_raw`; ``truncated`` as long as the file is shorter than it promises.
    """
    path = Path(path)
    with _opened(path) as handle:
        try:
            if handle.compressed:
                content = _gunzip(handle, detector)
                return _image_hdu(_scan_memory(content), detector).header
            return _image_hdu(scan(handle.read_at, handle.size), detector).header
        except (FitsError, RawError) as error:
            raise RawError(error.kind, error.text, path) from error
        except OSError as error:
            raise RawError("unreadable", f"cannot be read ({error.strerror})", path) from error


class _opened:
    """A regular file, open for positioned reading. Pipes and devices would hang the reader: refused."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> _opened:
        try:
            self.handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError as error:
            raise RawError("missing", "no such file", self.path) from error
        except OSError as error:
            raise RawError("unreadable", f"cannot be opened ({error.strerror})", self.path) from error
        status = os.fstat(self.handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.handle)
            raise RawError("unreadable", "is not a regular file", self.path)
        self.size = status.st_size
        self.compressed = self.read_at(0, 2) == b"\x1f\x8b"
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self.handle, count, offset)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. No mapping: a mapped file that shrinks kills the process."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self.handle, [buffer[done:]], offset + done)
            if count == 0:
                raise FitsError("truncated", "the file became shorter while it was read")
            done += count

    def read_all(self, limit: int) -> bytes:
        if self.size > limit:
            raise FitsError("unreadable", f"{self.size} bytes are too many for one frame")
        content = bytearray(self.size)
        self.read_into(0, memoryview(content))
        return bytes(content)


def _pixels_of(detector: Detector | None) -> int:
    rows, columns = detector.ccd_shape if detector else (8000, 8000)
    return rows * columns


def _limit(detector: Detector | None) -> int:
    """Most bytes that a frame of this detector can reasonably take, packed or not."""
    return 3 * _pixels_of(detector) + _HEADER_ROOM


def _gunzip(handle: _opened, detector: Detector | None) -> bytes:
    """Content of a gzip file, at most as long as a frame can be: a small file may hold a huge one."""
    limit = _limit(detector)
    unpacker = zlib.decompressobj(wbits=31)
    parts, total, offset = [], 0, 0
    try:
        while offset < handle.size and not unpacker.eof:
            packed = handle.read_at(offset, 1 << 20)
            if not packed:
                break
            offset += len(packed)
            parts.append(unpacker.decompress(packed, limit + 1 - total))
            total += len(parts[-1])
            if total > limit:
                raise FitsError("unreadable", "unpacks to more than a frame can be")
    except zlib.error as error:
        raise FitsError("unreadable", f"gzip content is damaged ({error})") from error
    if not unpacker.eof:
        raise FitsError("truncated", "the gzip file ends early")
    return b"".join(parts)


def _scan_memory(content: bytes) -> list[HDU]:
    return scan(lambda offset, count: content[offset : offset + count], len(content))


def _image_hdu(hdus: list[HDU], detector: Detector | None) -> HDU:
    """The frame: the last extension, after checking type, scaling and shape."""
    hdu = hdus[-1]
    if hdu.is_compressed_image:
        kind, shape = hdu.header.get("ZBITPIX"), (hdu.header.get("ZNAXIS2"), hdu.header.get("ZNAXIS1"))
        dimensions = hdu.header.get("ZNAXIS")
    elif hdu.is_image:
        kind, shape, dimensions = hdu.header["BITPIX"], hdu.axes[::-1], len(hdu.axes)
        if hdu.header.get("PCOUNT", 0) != 0 or hdu.header.get("GCOUNT", 1) != 1:
            raise RawError("unreadable", "PCOUNT or GCOUNT is not that of an image")
    else:
        raise RawError("unreadable", "the last extension is not an image")
    expected = detector.ccd_shape if detector else None
    if dimensions != 2 or (expected and tuple(shape) != tuple(expected)):
        wanted = f"{expected[1]} x {expected[0]}" if expected else "two axes"
        found = " x ".join(str(length) for length in reversed(shape))
        raise RawError("shape", f"the image has {found} pixels, the detector {wanted}")
    if not all(isinstance(n, int) and n > 0 for n in shape) or (
        not expected and shape[0] * shape[1] > _pixels_of(None)
    ):
        raise RawError("shape", f"{shape[1]} x {shape[0]} pixels are not one frame")
    if hdu.is_compressed_image:
        _check_compressed(hdu)
    if kind != 16 or hdu.header.get("BZERO", 0) != 32768 or hdu.header.get("BSCALE", 1) != 1:
        raise RawError("unreadable", "the image is not unsigned 16 bit (BITPIX 16, BZERO 32768, BSCALE 1)")
    return hdu


def _read_pixels(handle: _opened, hdu: HDU, verify: bool, room: np.ndarray | None = None) -> np.ndarray:
    """Pixels of an uncompressed image: read, swapped and shifted chunk by chunk, in one pass of memory."""
    import numpy as np

    columns, rows = hdu.axes
    fits = room is not None and room.shape == (rows, columns) and room.flags.c_contiguous
    out = room.reshape(-1) if fits else np.empty(rows * columns, np.uint16)
    chunk = np.empty(_CHUNK, ">u2")
    verify = verify and has_checksum(hdu.header)
    total = 0
    for start in range(0, out.size, _CHUNK):
        part = chunk[: min(_CHUNK, out.size - start)]
        handle.read_into(hdu.data_offset + 2 * start, memoryview(part).cast("B"))
        # BZERO 32768: stored signed, so flipping the top bit gives the unsigned value
        np.bitwise_xor(part, np.uint16(0x8000), out=out[start : start + part.size])
        if verify:
            total += _sum_words(part)
    if verify:
        _compare(hdu, total, handle.read_at)
    return out.reshape(rows, columns)


def _sum_words(part: np.ndarray) -> int:
    """Sum of big-endian 16-bit pixels taken as 32-bit words (the first of a pair is the high half)."""
    import numpy as np

    return (int(part[0::2].sum(dtype=np.uint64)) << 16) + int(part[1::2].sum(dtype=np.uint64))


def _compare(hdu: HDU, total: int, read_at: Callable[[int, int], bytes]) -> None:
    if not agrees(hdu, fold(total), read_at):
        raise RawError("unreadable", "header or pixels do not agree with their checksum: the file is damaged")


def _read_memory(content: bytes, path: Path, detector: Detector | None, verify: bool) -> Raw:
    """Frame from the whole content of a file (unpacked gzip, or tile-compressed)."""
    import numpy as np

    hdu = _image_hdu(_scan_memory(content), detector)
    if verify and has_checksum(hdu.header):
        data = memoryview(content)[hdu.data_offset : hdu.data_offset + hdu.data_size]
        _compare(hdu, word_sum(data), lambda offset, count: content[offset : offset + count])
    if hdu.is_compressed_image:
        signed, header = _decode_tiles(content, hdu), _image_header(hdu)
    else:
        columns, rows = hdu.axes
        signed = np.frombuffer(content, ">u2", rows * columns, hdu.data_offset).reshape(rows, columns)
        header = hdu.header
    return Raw(np.bitwise_xor(signed, np.uint16(0x8000), dtype=np.uint16), header, path)


# ---- tile compression ----------------------------------------------------------------------------
def _check_compressed(hdu: HDU) -> None:
    """Refuse ways of compression that are not decoded, and tilings that do not fit the image."""
    header = hdu.header
    way = str(header.get("ZCMPTYPE", "")).strip()
    if way not in COMPRESSIONS:
        raise RawError(
            "compression",
            f"compressed with {way or 'nothing known'}; unpack it (funpack) or use {', '.join(COMPRESSIONS)}",
        )
    sizes = [header.get(name) for name in ("ZNAXIS1", "ZNAXIS2", "NAXIS1", "NAXIS2", "PCOUNT")]
    if not all(isinstance(size, int) and 0 < size < 2**31 for size in sizes):
        raise RawError("unreadable", "the compressed image has no valid sizes")
    columns, rows, _, tiles, _ = sizes
    tile = header.get("ZTILE1", columns), header.get("ZTILE2", 1)
    if not all(
        isinstance(size, int) and 0 < size <= length
        for size, length in zip(tile, (columns, rows), strict=True)
    ):
        raise RawError("unreadable", "the tiles do not fit the image")
    if -(-columns // tile[0]) * -(-rows // tile[1]) != tiles:
        raise RawError("unreadable", "the number of tiles does not fit the image")
    form = str(header.get("TFORM1", "")).strip()
    plain = form[:3] in ("1PB", "1QB") or form[:2] in ("PB", "QB")
    if header.get("TFIELDS") != 1 or str(header.get("TTYPE1", "")).strip() != "COMPRESSED_DATA" or not plain:
        raise RawError("compression", "the compressed table has other columns than COMPRESSED_DATA")
    if way == "RICE_1":
        options = {str(header.get(f"ZNAME{n}", "")).strip(): header.get(f"ZVAL{n}") for n in (1, 2)}
        if options.get("BYTEPIX", 2) != 2 or options.get("BLOCKSIZE", 32) not in (16, 32):
            raise RawError("compression", "RICE_1 with settings that calcamp does not decode")


def _tiles(content: bytes, hdu: HDU) -> list[memoryview]:
    """Compressed bytes of each tile, after checking that all lie inside the heap."""
    import numpy as np

    header = hdu.header
    width, count = header["NAXIS1"], header["NAXIS2"]
    long = "Q" in str(header["TFORM1"])[:3]
    if width != (16 if long else 8):
        raise RawError("unreadable", "the compressed table has no valid rows")
    start = header.get("THEAP", width * count)
    if not isinstance(start, int) or not width * count <= start <= hdu.data_size:
        raise RawError("unreadable", "the heap of the compressed table is misplaced")
    heap = memoryview(content)[hdu.data_offset + start : hdu.data_offset + hdu.data_size]
    pairs = (
        np.frombuffer(content, ">i8" if long else ">i4", 2 * count, hdu.data_offset)
        .reshape(count, 2)
        .astype(np.int64)
    )
    lengths, offsets = pairs[:, 0], pairs[:, 1]
    if (
        (lengths <= 0).any()
        or (offsets < 0).any()
        or (offsets > len(heap)).any()
        or (lengths > len(heap) - offsets).any()
    ):
        raise RawError("unreadable", "a compressed tile lies outside the file")
    return [heap[o : o + n] for n, o in pairs.tolist()]


def _decode_tiles(content: bytes, hdu: HDU) -> np.ndarray:
    """Stored (signed, shifted) pixels of a compressed image as uint16 bit patterns."""
    import numpy as np

    header = hdu.header
    tiles = _tiles(content, hdu)
    if header["ZCMPTYPE"].strip() == "RICE_1":
        return _rice(content, hdu)
    columns, rows = header["ZNAXIS1"], header["ZNAXIS2"]
    tile_columns, tile_rows = header.get("ZTILE1", columns), header.get("ZTILE2", 1)
    out = np.empty((rows, columns), np.uint16)
    across = -(-columns // tile_columns)
    for number, packed in enumerate(tiles):
        row, column = number // across * tile_rows, number % across * tile_columns
        target = out[row : row + tile_rows, column : column + tile_columns]
        target[...] = _gzip(packed, target.size, header).reshape(target.shape)
    return out


def _gzip(packed: memoryview, pixels: int, header: dict) -> np.ndarray:
    """GZIP_1 (big-endian pixels) and GZIP_2 (all high bytes, then all low bytes)."""
    import numpy as np

    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(packed, 2 * pixels + 1)
    except zlib.error as error:
        raise RawError("unreadable", f"a compressed tile is damaged ({error})") from error
    if len(data) != 2 * pixels or not unpacker.eof:
        raise RawError("unreadable", "a compressed tile does not unpack to its size")
    if header["ZCMPTYPE"].strip() == "GZIP_2":
        return np.frombuffer(data, np.uint8).reshape(2, pixels).T.copy().view(">u2").reshape(pixels)
    return np.frombuffer(data, ">u2")


def _rice(content: bytes, hdu: HDU) -> np.ndarray:
    """RICE_1, decoded by astropy, which has the reference code; everything around it is checked before."""
    import warnings

    import numpy as np
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(content), memmap=False, do_not_scale_image_data=True) as hdus:
                data = hdus[hdu.index].data
    except Exception as error:  # whatever a damaged stream makes of the decoder
        raise RawError("unreadable", f"the compressed image is damaged ({error})") from error
    if (
        data is None
        or data.dtype.itemsize != 2
        or data.shape != (hdu.header["ZNAXIS2"], hdu.header["ZNAXIS1"])
    ):
        raise RawError("unreadable", "the compressed image does not unpack to its size")
    return data.astype(np.int16, copy=False).view(np.uint16)


def _image_header(hdu: HDU) -> dict:
    """Header of the image that a compressed table stands for."""
    header = hdu.header
    out: dict[str, object] = {"XTENSION": "IMAGE", "BITPIX": header["ZBITPIX"], "NAXIS": header["ZNAXIS"]}
    out |= {"NAXIS1": header["ZNAXIS1"], "NAXIS2": header["ZNAXIS2"], "PCOUNT": 0, "GCOUNT": 1}
    skipped = (*_TABLE_KEYS, *out)
    of_tiles = (
        "ZIMAGE",
        "ZTENSION",
        "ZBITPIX",
        "ZNAXIS",
        "ZPCOUNT",
        "ZGCOUNT",
        "ZTILE",
        "ZCMPTYPE",
        "ZNAME",
        "ZVAL",
        "ZHECKSUM",
        "ZDATASUM",
    )
    return out | {
        key: value for key, value in header.items() if key not in skipped and not key.startswith(of_tiles)
    }


# ---- writing -------------------------------------------------------------------------------------
def _same_name(columns: str) -> tuple[tuple[str, str], ...]:
    """(keyword, column) where the keyword is the column in capitals."""
    return tuple((name.upper(), name) for name in columns.split())


#: Header cards of ELVIS 6.3 and later in their order, and the exposure-log column each comes from.
_CARDS = (
    ("BUNIT", "BUNIT"),
    ("PROGRAM", "program"),
    ("OBJECT", "test"),
    ("OBSID", "ObsID"),
    ("OPERATOR", "operator"),
    ("FULLPATH", "fullpath"),
    ("LAB_VER", "lab_ver"),
    ("CON_FILE", "con_file"),
    ("CALSCRPT", "calscrpt"),
    ("COMMENTS", "comments"),
    ("DATE", "date"),
    *_same_name("exptime fl_rdout ci_rdout IPHI chinj chinj_on chinj_of chin_dly"),
    *_same_name("id_wid id_dly v_tpump s_tpump v_tp_mod s_tp_mod v_tp_cnt s_tp_cnt"),
    *_same_name("dwell_v dwell_s toi_fl toi_tp toi_ro toi_ch siflsh siflsh_p"),
    *_same_name("flushes vstart vend rdmode swellw swelldly inisweep"),
    ("SPW_CLK", "cdpu_clk"),
    *_same_name("fpga_ver egse_ver motr motr_cnt motr_siz source wave"),
    ("POS_MIRR", "mirr_pos"),
    *_same_name("sn_ccd1 sn_ccd2 sn_ccd3 sn_roe sn_rpsu"),
)
_NOT_CARDS = ("File_name",)


def raw_cards(values: Mapping[str, object]) -> list[tuple[str, object]]:
    """Header cards (keyword, value) of a frame from its row of the exposure log.

    First those of the interface description in its order, then the other columns in capitals
    (temperatures, voltages, CCD, ROE, TEST and the newer names of those above).
    """
    cards = [(key, values.get(name, "")) for key, name in _CARDS]
    done = {key for key, _ in cards}
    for name in elvis.explog_columns():
        if name.upper() not in done and name not in _NOT_CARDS and values.get(name) is not None:
            cards.append((name.upper(), values[name]))
    return [(key, value) for key, value in cards if value is not None]


def write_raw(
    path: Path | str,
    data: np.ndarray,
    header_cards: Mapping[str, object] | Iterable[tuple[str, object]],
    extname: str | None = None,
) -> Path:
    """Write a raw frame as ELVIS does: empty primary, then the image, unsigned 16 bit.

    Parameters
    ----------
    path : ``….fits``; the file appears whole or not at all.
    data : uint16 [row, column], stored orientation.
    header_cards : keyword and value pairs, see `raw_cards`.
    extname : ``ROE1_CCD<c>``, by default from the file name.
    """
    with replacing(path, sync=False) as stream:
        for piece in raw_pieces(path, data, header_cards, extname):
            stream.write(piece)
    return Path(path)


def raw_pieces(
    path: Path | str,
    data: np.ndarray,
    header_cards: Mapping[str, object] | Iterable[tuple[str, object]],
    extname: str | None = None,
) -> Iterable[bytes | memoryview]:
    """The bytes of a raw frame in order: headers, pixels in chunks, padding (for live play at ELVIS's pace)."""
    import numpy as np

    if data.dtype != np.uint16 or data.ndim != 2:
        raise ValueError(f"a raw frame is uint16 with two axes, not {data.dtype} with {data.ndim}")
    if extname is None:
        match = RAW_RE.fullmatch(Path(path).name)
        extname = f"ROE{match['roe']}_CCD{match['ccd']}" if match else "ROE1_CCD1"
    pairs = header_cards.items() if isinstance(header_cards, Mapping) else header_cards
    structure = [
        card("XTENSION", "IMAGE", "image extension"),
        card("BITPIX", 16),
        card("NAXIS", 2),
        card("NAXIS1", data.shape[1]),
        card("NAXIS2", data.shape[0]),
        card("PCOUNT", 0),
        card("GCOUNT", 1),
        card("BZERO", 32768),
        card("BSCALE", 1),
        card("EXTNAME", extname),
    ]
    mine = {text[:8].rstrip() for text in structure}
    primary = [card("SIMPLE", True), card("BITPIX", 8), card("NAXIS", 0), card("EXTEND", True)]
    yield header_bytes(primary) + header_bytes(
        [*structure, *(card(key, value) for key, value in pairs if key.upper() not in mine)]
    )
    flat = np.ascontiguousarray(data).reshape(-1)
    for start in range(0, flat.size, 1 << 20):
        yield np.bitwise_xor(flat[start : start + (1 << 20)], np.uint16(0x8000)).byteswap().tobytes()
    yield bytes(padded(2 * flat.size) - 2 * flat.size)
