"""The tables and images that a report shows, made small and handy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from calcamp.data.tables import table_arrays

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Table:
    """A table held by columns: numbers as float or int arrays, texts and truth values as object arrays."""

    name: str
    columns: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def has(self, *columns: str) -> bool:
        """Whether every one of `columns` is there."""
        return all(column in self.columns for column in columns)

    def unit(self, column: str) -> str:
        """Unit of a column in the report's spelling, empty without one."""
        return pretty_unit(self.units.get(column) or "")

    def floats(self, column: str) -> np.ndarray:
        """A column as float, what is not a number as NaN; all NaN when the column is absent."""
        import numpy as np

        if column not in self.columns:
            return np.full(len(self), np.nan)
        values = self.columns[column]
        if values.dtype.kind in "fiu":
            return values.astype(float)
        return np.array([_number(value) for value in values], dtype=float)

    def where(self, mask: np.ndarray) -> Table:
        """The rows for which `mask` holds."""
        return Table(self.name, {k: v[mask] for k, v in self.columns.items()}, self.units, self.meta)

    def select(self, **keys) -> Table:
        """The rows with these key values; a key that the table does not have selects nothing away."""
        import numpy as np

        mask = np.ones(len(self), dtype=bool)
        for key, value in keys.items():
            if key in self.columns:
                mask &= self.columns[key] == value
        return self.where(mask)

    def distinct(self, column: str) -> list:
        """Values of a key column in order of first appearance."""
        return list(dict.fromkeys(self.columns[column].tolist())) if column in self.columns else []

    def rows(self, limit: int | None = None) -> list[dict]:
        """Rows as dictionaries of plain Python values, NaN as None."""
        names = list(self.columns)
        stop = len(self) if limit is None else min(limit, len(self))
        lists = [self.columns[name][:stop].tolist() for name in names]
        return [dict(zip(names, (_plain(v) for v in row), strict=True)) for row in zip(*lists, strict=True)]


def _plain(value):
    return None if isinstance(value, float) and value != value else value


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


#: Units that people write in another order; the others are spelt word by word.
UNITS = {
    "electron / (h pix)": "e⁻/px/h",
    "electron / (pix h)": "e⁻/px/h",
    "e-/(px h)": "e⁻/px/h",
    "1/min/cm2": "/min/cm²",
    "1": "",
}
_WORDS = {
    "adu": "ADU",
    "electron": "e⁻",
    "e-": "e⁻",
    "pix": "px",
    "pixel": "px",
    "kpix": "kpx",
    "us": "µs",
    "um": "µm",
    "deg_C": "°C",
    "degC": "°C",
}
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def pretty_unit(unit: str) -> str:
    """`unit` (FITS or astropy spelling) as a report prints it."""
    unit = str(unit).strip()
    if unit in UNITS:
        return UNITS[unit]
    words = re.sub(r"([^\W\d]+-?)(\d*)", lambda m: _WORDS.get(m[1], m[1]) + m[2].translate(_RAISED), unit)
    return words.replace(" / ", "/")


def read_table(path: Path | str) -> Table:
    """Read an ECSV table; raises `InputError` with the file's name when it cannot be read."""
    columns, header = table_arrays(path)
    units = {name: header["units"].get(name, "") for name in columns}
    return Table(Path(path).stem, columns, units, header["meta"])


# ---- images ---------------------------------------------------------------------------------------
def read_reduced(
    path: Path | str, extname: str, detector, longest: int = 300, smooth: bool = False
) -> dict[str, np.ndarray]:
    """Image areas of the four quadrants of a CCD product, as block means small enough for a page.

    Parameters
    ----------
    path : FITS product of one CCD, stored orientation, shape ``detector.ccd_shape``
    extname : name of the image extension
    longest : pixels that the longer side of a quadrant may have afterwards
    smooth : the image changes little from pixel to pixel: the middle of each block stands for its mean, and most of the
        file is not read

    Returns
    -------
    dict of float32 arrays per quadrant in **stored** (beam) orientation, so that they can be drawn as
    seen; NaN where a block has no finite pixel. Raises ValueError with the reason.
    """
    frame = _open_image(Path(path), extname)
    if tuple(frame.shape) != tuple(detector.ccd_shape):
        raise ValueError(f"{Path(path).name}[{extname}] has shape {frame.shape}, not {detector.ccd_shape}")
    return {quadrant: _reduced_quadrant(frame, quadrant, detector, longest, smooth) for quadrant in "EFGH"}


def _reduced_quadrant(frame, quadrant: str, detector, longest: int, smooth: bool = False) -> np.ndarray:
    import numpy as np

    from calcamp.analysis.sums import block_means

    rows, columns = detector.quadrant_slices(quadrant)
    # Image area in stored orientation: scans lie at the outer (prescan) and inner (overscan) sides.
    first_row = rows.start + (0 if quadrant in "GH" else detector.parallel_overscan)
    first_column = columns.start + (detector.prescan if quadrant in "EH" else detector.overscan)
    image = frame[
        first_row : first_row + detector.image_rows, first_column : first_column + detector.image_columns
    ]
    step = max(1, -(-max(image.shape) // longest))
    if smooth:
        return np.asarray(image[step // 2 :: step, step // 2 :: step], dtype=np.float32)
    return block_means(image, step)


_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}


def _open_image(path: Path, extname: str) -> np.ndarray:
    """The named image of a FITS file as a memory map, or through astropy when it is compressed or scaled."""
    import numpy as np

    found = _find_plain_image(path, extname)
    if found is not None:
        bitpix, shape, offset = found
        return np.memmap(path, dtype=_DTYPES[bitpix], mode="r", offset=offset, shape=shape)
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        if extname not in file:
            raise ValueError(f"{path.name} has no extension {extname}")
        return np.asarray(file[extname].data)


def _find_plain_image(path: Path, extname: str) -> tuple[int, tuple[int, int], int] | None:
    """(BITPIX, shape, offset of the data) of an unscaled 2-D image extension, None if not so plain."""
    with open(path, "rb") as file:
        while True:
            cards = {}
            while True:
                block = file.read(2880)
                if len(block) < 2880:
                    return None
                lines = [block[i : i + 80] for i in range(0, 2880, 80)]
                for line in lines:
                    if line[8:10] == b"= ":
                        cards[line[:8].strip().decode("ascii", "replace")] = _card_value(line[10:])
                if any(line[:8] == b"END     " for line in lines):
                    break
            axes = int(cards.get("NAXIS", 0))
            shape = [int(cards.get(f"NAXIS{k}", 0)) for k in range(axes, 0, -1)]
            count = math.prod(shape) if shape else 0
            bitpix = int(cards.get("BITPIX", 8))
            if cards.get("EXTNAME", "").upper() == extname.upper():
                plain = cards.get("XTENSION") == "IMAGE" and axes == 2 and bitpix in _DTYPES
                scaled = float(cards.get("BSCALE", 1)) != 1 or float(cards.get("BZERO", 0)) != 0
                return (bitpix, (shape[0], shape[1]), file.tell()) if plain and not scaled else None
            size = abs(bitpix) // 8 * (count + int(cards.get("PCOUNT", 0)))
            file.seek(-(-size // 2880) * 2880, 1)


def _card_value(raw: bytes) -> str:
    text = raw.decode("ascii", "replace").strip()
    if text.startswith("'"):
        return text[1:].split("'", 1)[0].strip()
    return text.split("/", 1)[0].strip()
