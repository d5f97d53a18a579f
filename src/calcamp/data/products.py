"""Calibration products: their kinds, names, reading, and the check that they belong to this CCD.

The names and layouts are those of the campaign (old products are read as they are); what is new carries
its provenance in the primary header: block, serial, test, OBSIDs, version, inputs with checksums.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from calcamp.data.files import InputError, read_json, sha256, write_atomic
from calcamp.data.fitsfile import extensions, read_fits_table, read_image, write_product
from calcamp.detector.dq import DQ
from calcamp.detector.geometry import CCDS, QUADRANTS, Detector

if TYPE_CHECKING:
    import numpy as np

MAX_XLSX_BYTES = 50 * 1024 * 1024  # unpacked
MAX_XLSX_ROWS = 10_000


@dataclass(frozen=True)
class Kind:
    """What a kind of product is, and how its file is named."""

    name: str
    title: str
    pattern: str  # str.format of block, ccd, serial, nm, column; {ccd} absent: one file for the block
    image: str = ""  # extension that holds the data
    per_wavelength: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mask", "cosmetic mask, 0 good, 1 bad", "EUC_MASK_{block}_CCD{ccd}_SN_{serial}.fits", "MASK"),
        Kind("dq", "defects by kind, bits", "EUC_DQ_{block}_CCD{ccd}_SN_{serial}.fits", "DQ"),
        Kind("bias", "master bias", "EUC_MASTERBIAS_CCD{ccd}_SN_{serial}_{block}.fits", "STACK"),
        Kind("dark", "master dark", "EUC_DARK_CCD{ccd}_SN_{serial}_{block}.fits", "DARK"),
        Kind(
            "flat",
            "master flat field",
            "EUC_FF_{nm}nm_{column}_ROE1_CCD{ccd}.fits",
            "FLAT",
            per_wavelength=True,
        ),
        Kind("gain", "gain per quadrant", "EUC_GAIN_{nm}nm_{block}.fits", per_wavelength=True),
        Kind("linearity", "correction of non-linearity", "EUC_LINEARITY_{block}.fits"),
        Kind("bf_kernel", "brighter-fatter kernel", "EUC_BFKERNEL_{nm}nm_{block}.fits", per_wavelength=True),
        Kind("crosstalk", "cross-talk matrix", "EUC_CROSSTALK_{block}.fits"),
        Kind("lock", "positions of the point sources", "EUC_LOCK_{block}.ecsv"),
        Kind("shutter", "commanded and true exposure times", "EUC_SHUTTER_{block}.ecsv"),
        Kind("traps", "trap catalogue", "EUC_TRAPS_CCD{ccd}_SN_{serial}_{block}.fits"),
    )
}
#: Names in a session's old configuration.
OLD_KINDS = {"Mask": "mask", "Gain": "gain", "FF": "flat", "Bias": "bias", "bias": "bias"}
#: Serials in headers that mean nothing: written by the predecessor or by simulators.
_NO_SERIAL = frozenset(("", "UNKNOWN", "UKNOWN", "NONE", "N/A"))
_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SERIAL_IN_NAME = re.compile(r"_SN_([A-Za-z0-9.-]{1,40})(?:_[A-Za-z0-9_.-]*)?\.fits$", re.ASCII)
_CCD_IN_NAME = re.compile(r"_CCD([123])(?=[_.])", re.ASCII)


class Gain(NamedTuple):
    """Gain of a quadrant and its error, e-/ADU. An error that is not known is NaN."""

    value: float
    err: float


@dataclass(frozen=True)
class ProductInfo:
    """What a product says about itself; texts are empty and numbers None where it says nothing."""

    kind: str
    path: str
    sha256: str
    ccd: int | None = None
    serial: str = ""
    block: str = ""
    chamber: str = ""
    wavelength: int | None = None  # nm
    test: str = ""
    version: str = ""
    offset: str = ""  # how the offset of a master was taken
    extensions: tuple[str, ...] = ()
    header: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Plain data for records and reports, without the full header."""
        out = asdict(self)
        del out["header"]
        return out


def kind_of(name: str) -> Kind:
    """The kind called `name`, or by its old name; `InputError` lists what there is."""
    kind = KINDS.get(OLD_KINDS.get(name, name))
    if kind is None:
        raise InputError(f"no kind of calibration product is called {name!r}", expected=", ".join(KINDS))
    return kind


def product_name(
    kind: str,
    block: str = "",
    ccd: int | None = None,
    serial: str = "",
    nm: int | None = None,
    column: str = "col001",
) -> str:
    """File name of a product. ValueError when a part is missing or not fit for a file name."""
    parts = {"block": block, "ccd": ccd, "serial": serial, "nm": nm, "column": column}
    pattern = kind_of(kind).pattern
    for name in re.findall(r"{(\w+)}", pattern):
        if parts[name] is None or not _SAFE.fullmatch(str(parts[name])):
            raise ValueError(f"the name of a {kind} product needs {name}, not {parts[name]!r}")
    return pattern.format(**parts)


def provenance(
    *,
    session: str,
    block: str,
    chamber: str,
    test: str,
    obsids: Sequence[int] = (),
    ccd: int | None = None,
    serial: str = "",
    inputs: Mapping[str, str] | None = None,
    **more: object,
) -> dict[str, object]:
    """Cards of a product's primary header that say where it comes from.

    Parameters
    ----------
    obsids : exposures used; first, last and number are written.
    inputs : file -> sha256 of what went in.
    more : further cards, e.g. ``OFFSET="row pre"`` for a master, ``WAVEL=730`` for a flat.
    """
    header: dict[str, object] = {
        "ID": (session, "session"),
        "BLOCKID": block,
        "CHAMBER": chamber,
        "TEST": test,
    }
    if ccd is not None:
        header |= {"CCD": ccd, "SN": (serial, "serial of the CCD")}
    if obsids:
        header |= {"OBSID1": min(obsids), "OBSID2": max(obsids), "NOBSID": len(set(obsids))}
    header |= {key.upper(): value for key, value in more.items()}
    for number, (name, checksum) in enumerate((inputs or {}).items(), start=1):
        header |= {f"IN{number:04d}": name, f"SHA{number:04d}": checksum}
    return header


# ---- what a product is ---------------------------------------------------------------------------
def product_info(kind: str, path: Path | str, checksum: bool = True) -> ProductInfo:
    """Identity and provenance of a product file.

    Raises
    ------
    InputError : not readable, or a pickle.
    """
    path = Path(path)
    refuse_pickle(path)
    name = kind_of(kind).name
    names, header = (), {}
    if path.suffix == ".fits":
        parts = extensions(path)
        names = tuple(part for part, _ in parts)
        header = parts[0][1] | {
            k: v for k, v in parts[-1][1].items() if k in _IDENTITY and k not in parts[0][1]
        }
    elif not path.is_file():
        raise InputError("no such product", file=path, remedy=_promote(name))
    return ProductInfo(
        kind=name,
        path=str(path),
        sha256=sha256(path) if checksum else "",
        ccd=_ccd_of(header, path),
        serial=serial_of(header, path),
        block=_text(header, "BLOCKID"),
        chamber=_text(header, "CHAMBER"),
        wavelength=_wavelength(header, path),
        test=_text(header, "TEST"),
        version=_text(header, "CREATOR")
        or (f"vison {_text(header, 'VISON')}".strip() if "VISON" in header else ""),
        offset=_text(header, "OFFSET"),
        extensions=names,
        header=header,
    )


_IDENTITY = ("SN", "CCD_SN", "CCDSN", "BLOCKID", "CHAMBER", "WAVEL", "CCD", "TEST", "OFFSET", "VISON")


def _text(header: Mapping, key: str) -> str:
    value = header.get(key)
    text = "" if value is None else str(value).strip()
    return "" if text.upper() in _NO_SERIAL else text


def serial_of(header: Mapping, path: Path | str = "") -> str:
    """CCD serial of a product: from its header, else from its name; empty when neither says it."""
    for key in ("SN", "CCD_SN", "CCDSN"):
        if _text(header, key):
            return _text(header, key)
    match = _SERIAL_IN_NAME.search(Path(path).name)
    return match[1].removesuffix("_") if match and match[1].upper() not in _NO_SERIAL else ""


def _ccd_of(header: Mapping, path: Path) -> int | None:
    text = _text(header, "CCD").upper().removeprefix("CCD")
    match = _CCD_IN_NAME.search(path.name)
    return int(text) if text in ("1", "2", "3") else int(match[1]) if match else None


def _wavelength(header: Mapping, path: Path) -> int | None:
    match = re.fullmatch(r"(?:nm)?(\d{1,4})(?:\.0*)?(?:nm)?", _text(header, "WAVEL"))
    match = match or re.search(r"_(\d{1,4})nm_", path.name)
    return int(match[1]) if match else None


def check_serial(
    found: str, expected: str | None, path: Path | str, kind: str = "product", ccd: int | None = None
) -> None:
    """Refuse a product made for another CCD.

    Parameters
    ----------
    found : serial that the product gives (`serial_of`); empty: it gives none, which is accepted, as old
        products do not.
    expected : serial of the CCD in the block file; None or empty: not checked.

    Raises
    ------
    InputError : the two differ.
    """
    if not expected or not found or _normal(found) == _normal(expected):
        return
    which = f"CCD{ccd}" if ccd else "this CCD"
    raise InputError(
        f"the {kind} was made for the CCD with serial {found}",
        file=path,
        expected=f"serial {expected}, which the block file gives for {which}",
        remedy="Name the product of the right CCD, or correct the serial in the block file",
    )


def _normal(serial: str) -> str:
    return "".join(serial.split()).upper()


def refuse_pickle(path: Path | str) -> None:
    """`InputError` for a pickle: reading one would run whatever is in it."""
    path = Path(path)
    if path.suffix.lower() not in (".pick", ".pickle", ".pkl"):
        return
    twin = path.with_suffix(".xlsx")
    remedy = f"Use {twin.name}, which lies beside it" if twin.is_file() else f"Use its twin {twin.name}"
    raise InputError(
        "is a pickle, which calcamp does not read",
        file=path,
        expected="FITS, ECSV, JSON or .xlsx",
        remedy=remedy,
    )


def _promote(kind: str) -> str:
    return f"Correct the path, or leave out the {kind} product in the block or session file"


# ---- images --------------------------------------------------------------------------------------
def load_mask(
    path: Path | str, detector: Detector | None = None, serial: str | None = None, ccd: int | None = None
) -> tuple[np.ndarray, str]:
    """Defects of a CCD as DQ bits.

    Takes the bits of a ``dq`` product, or a 0/1 mask (last extension) whose bad pixels become ``DQ.MASKED``.

    Parameters
    ----------
    detector : the shape must be ``detector.ccd_shape``.
    serial, ccd : of the block file; a product of another CCD is refused.

    Returns
    -------
    (uint32 [row, column] in stored orientation, serial that the product gives or "").
    """
    import numpy as np

    path = Path(path)
    info = product_info("mask", path, checksum=False)
    check_serial(info.serial, serial, path, "mask", ccd)
    bits = "DQ" in (name.upper() for name in info.extensions)
    data, header = read_image(path, "DQ" if bits else None)
    _check_shape(data, detector, path)
    if not bits and header.get("EXTNAME", "MASK").upper() not in ("MASK", "", "PRIMARY"):
        raise InputError(
            f"the last extension is {header.get('EXTNAME')}, not a mask",
            file=path,
            expected="EUC_MASK_... or EUC_DQ_...",
            remedy="Use the merged mask of COSMETICS00: the separate dark and flat masks end with the map of defects",
        )
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError("the mask holds values that are not numbers", file=path, expected="0 and 1")
    if bits:
        return data.astype(np.uint32), info.serial
    return np.where(data != 0, np.uint32(DQ.MASKED), np.uint32(0)), info.serial


@dataclass(frozen=True)
class ImageProduct:
    """A master image: ``data``, its error and DQ planes where the product has them, and its identity."""

    data: np.ndarray
    error: np.ndarray | None
    dq: np.ndarray | None
    info: ProductInfo


def load_image_product(
    kind: str,
    path: Path | str,
    detector: Detector | None = None,
    serial: str | None = None,
    ccd: int | None = None,
    nm: int | None = None,
) -> ImageProduct:
    """A master bias, dark or flat.

    The error is extension ``ERROR`` (``STD``, ``EFLAT`` and ``EDARK`` of the predecessor are scatters of the
    inputs, not errors, and are not taken). DQ is ``DQ`` or an old 0/1 ``MASK``.

    Raises
    ------
    InputError : wrong CCD, wavelength or shape, or damaged.
    """
    import numpy as np

    path = Path(path)
    what = kind_of(kind)
    info = product_info(kind, path)
    check_serial(info.serial, serial, path, what.title, ccd)
    if ccd is not None and info.ccd is not None and info.ccd != ccd:
        raise InputError(
            f"the {what.title} is of CCD{info.ccd}",
            file=path,
            expected=f"CCD{ccd}",
            remedy=_promote(what.name),
        )
    if nm is not None and info.wavelength is not None and info.wavelength != nm:
        raise InputError(
            f"the {what.title} was taken at {info.wavelength} nm",
            file=path,
            expected=f"{nm} nm",
            remedy=_promote(what.name),
        )
    names = {name.upper() for name in info.extensions}
    data, _ = read_image(path, what.image)
    error = read_image(path, "ERROR")[0] if "ERROR" in names else None
    dq = read_image(path, "DQ")[0].astype(np.uint32) if "DQ" in names else None
    if dq is None and "MASK" in names:
        dq = np.where(read_image(path, "MASK")[0] != 0, np.uint32(DQ.MASKED), np.uint32(0))
    for plane in (data, error, dq):
        if plane is not None:
            _check_shape(plane, detector, path)
    return ImageProduct(np.asarray(data, np.float32), error, dq, info)


def load_bias(
    path: Path | str, detector: Detector | None = None, serial: str | None = None, ccd: int | None = None
) -> ImageProduct:
    """Master bias, ADU; ``info.offset`` says how the offset was taken. See `load_image_product`."""
    return load_image_product("bias", path, detector, serial, ccd)


def load_dark(
    path: Path | str, detector: Detector | None = None, serial: str | None = None, ccd: int | None = None
) -> ImageProduct:
    """Master dark. See `load_image_product`."""
    return load_image_product("dark", path, detector, serial, ccd)


def load_flat(
    path: Path | str,
    detector: Detector | None = None,
    serial: str | None = None,
    ccd: int | None = None,
    nm: int | None = None,
) -> ImageProduct:
    """Master flat, 1 outside the image area. See `load_image_product`."""
    return load_image_product("flat", path, detector, serial, ccd, nm)


def _check_shape(data: np.ndarray, detector: Detector | None, path: Path) -> None:
    if data.ndim != 2 or (detector is not None and data.shape != detector.ccd_shape):
        expected = "x".join(map(str, detector.ccd_shape[::-1])) if detector else "two axes"
        found = "x".join(map(str, data.shape[::-1]))
        raise InputError(
            f"the product has {found} pixels",
            file=path,
            expected=expected,
            remedy="Use the product of this detector",
        )


def write_mask(path: Path | str, bad: np.ndarray, header: Mapping[str, object]) -> Path:
    """Write a merged 0/1 mask readable by the predecessor: ``MASK`` int32 as the only and last image.

    `header`: ID, BLOCKID, CHAMBER, SN, DKMASK, FLMASK, FUNCTION and provenance; MASKTYPE is added.
    """
    import numpy as np

    return write_product(
        path, {"MASKTYPE": "COMBO"} | dict(header), [("MASK", np.asarray(bad != 0).astype(np.int32), "")]
    )


def write_dq(path: Path | str, dq: np.ndarray, header: Mapping[str, object]) -> Path:
    """Write a ``dq`` product: ``DQ`` uint32, with the meaning of each bit in the header (``BIT00`` …)."""
    import numpy as np

    bits = {f"BIT{bit.value.bit_length() - 1:02d}": bit.name for bit in DQ}
    return write_product(path, header, [("DQ", np.asarray(dq, np.uint32), "", bits)])


# ---- gain ----------------------------------------------------------------------------------------
GAIN_COLUMNS = ("CCD", "Q", "gain", "egain", "alpha", "fqual", "bloom")


def load_gain(source: Path | str | Mapping) -> dict[tuple[int, str], Gain]:
    """Gain per CCD and quadrant, e-/ADU.

    Parameters
    ----------
    source : a path: FITS product (table ``GAIN``), ECSV, JSON, or the predecessor's ``..._GAIN_TB.xlsx``
        (sheet ``GAIN_TB``); or numbers, ``{1: {"E": 3.5, …}, …}`` (keys 1 or CCD1; values a number or
        [gain, error]).

    Returns
    -------
    {(ccd, quadrant): Gain}. Quadrants whose gain is missing or was not fitted are left out.

    Raises
    ------
    InputError : pickle, unknown format, no gain in it, or a gain that cannot be one (not 0.1 to 100).
    """
    if isinstance(source, Mapping):
        return _gain_from_numbers(source, None)
    path = Path(source)
    refuse_pickle(path)
    if not path.is_file():
        raise InputError("no such product", file=path, remedy=_promote("gain"))
    readers = {".fits": _gain_fits, ".ecsv": _gain_ecsv, ".json": _gain_json, ".xlsx": _gain_xlsx}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError("is not a gain table", file=path, expected="FITS, ECSV, JSON or .xlsx")
    return reader(path)


def _gain_fits(path: Path) -> dict:
    columns = read_fits_table(path, "GAIN")
    return _gain_from_rows(
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], path
    )


def _gain_ecsv(path: Path) -> dict:
    from calcamp.data.tables import table_rows

    return _gain_from_rows(table_rows(path), path)


def _gain_json(path: Path) -> dict:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError("holds no gains", file=path, expected='{"CCD1": {"E": 3.5, ...}, ...}')
    return _gain_from_numbers(content.get("data", content.get("gain", content)), path)


def _gain_xlsx(path: Path) -> dict:
    return _gain_from_rows(read_xlsx_table(path, "GAIN_TB"), path)


def _gain_from_numbers(numbers: object, path: Path | None) -> dict:
    if not isinstance(numbers, Mapping):
        raise InputError("holds no gains", file=path, expected="CCD -> quadrant -> gain")
    rows = []
    for ccd, quadrants in numbers.items():
        if str(ccd).startswith("_"):
            continue  # a comment
        if not isinstance(quadrants, Mapping):
            raise InputError(f"gain of {ccd} is not a mapping of quadrants", file=path, expected="E, F, G, H")
        for quadrant, value in quadrants.items():
            pair = value if isinstance(value, list | tuple) else (value, None)
            rows.append(
                {
                    "ccd": ccd,
                    "quadrant": quadrant,
                    "gain": pair[0] if pair else None,
                    "gain_err": pair[1] if len(pair) > 1 else None,
                }
            )
    return _gain_from_rows(rows, path)


def _gain_from_rows(rows: Iterable[Mapping], path: Path | None) -> dict:
    gains: dict[tuple[int, str], Gain] = {}
    for row in rows:
        low = {str(key).strip().lower(): value for key, value in row.items()}
        key = _ccd(low.get("ccd"), path), _quadrant(low.get("q", low.get("quadrant")), path)
        gain = _float(low.get("gain"))
        if not math.isfinite(gain) or _float(low.get("fqual", 0)) % 2 == 1:
            continue  # not measured, or the fit ended in an exception (fqual bit 0)
        if not 0.1 <= gain <= 100:
            raise InputError(
                f"gain {gain:g} of CCD{key[0]} {key[1]}", file=path, expected="0.1 to 100 e-/ADU"
            )
        if key in gains:
            raise InputError(
                f"two gains for CCD{key[0]} {key[1]}",
                file=path,
                expected="one",
                remedy="Give the table of one wavelength",
            )
        gains[key] = Gain(gain, _float(low.get("gain_err", low.get("egain"))))
    if not gains:
        raise InputError("holds no gain", file=path, expected=f"columns {', '.join(GAIN_COLUMNS[:4])}")
    return gains


def _ccd(value: object, path: Path | None) -> int:
    text = str(value).strip().upper().removeprefix("CCD").removesuffix(".0")
    if text not in ("1", "2", "3"):
        raise InputError(f"{value!r} is not a CCD", file=path, expected="1, 2 or 3")
    return int(text)


def _quadrant(value: object, path: Path | None) -> str:
    text = str(value).strip().upper().removesuffix(".0")
    if text in ("1", "2", "3", "4"):
        text = QUADRANTS[int(text) - 1]
    if text not in QUADRANTS:
        raise InputError(f"{value!r} is not a quadrant", file=path, expected="E, F, G, H or 1 to 4")
    return text


def _float(value: object) -> float:
    """Number, NaN for what is none (a text, a missing cell)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def write_gain(path: Path | str, rows: Sequence[Mapping[str, object]], header: Mapping[str, object]) -> Path:
    """Write a gain product, FITS (table ``GAIN``) or ECSV by the path's ending.

    `rows`: ccd, quadrant, gain, gain_err and whatever else was fitted, the same keys in each row.
    """
    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    units = {
        key: unit
        for key, unit in (("gain", "electron / adu"), ("gain_err", "electron / adu"))
        if key in columns
    }
    if Path(path).suffix == ".ecsv":
        from calcamp.data.tables import write_table

        return write_table(path, columns, units, header)
    numbers = {
        key: [math.nan if value is None else value for value in values] for key, values in columns.items()
    }
    return write_product(path, header, tables=[("GAIN", numbers, units)])


def write_gain_xlsx(
    path: Path | str,
    rows: Sequence[Mapping[str, object]],
    header: Mapping[str, object],
    meta: Mapping[str, object] | None = None,
) -> Path:
    """Write the predecessor's ``<TEST>_GAIN_TB.xlsx``: sheets Header, Meta and GAIN_TB, for its own tools.

    `rows`: ccd, quadrant, gain, gain_err (or egain), alpha, fqual, bloom; what is absent is left empty.
    """
    table = []
    for row in rows:
        low = {str(key).lower(): value for key, value in row.items()}
        quadrant = QUADRANTS.index(_quadrant(low.get("quadrant", low.get("q")), None)) + 1
        low |= {
            "ccd": _ccd(low.get("ccd"), None),
            "q": quadrant,
            "egain": low.get("gain_err", low.get("egain")),
        }
        table.append({name: low.get(name.lower()) for name in GAIN_COLUMNS})
    return write_xlsx_table(path, {"GAIN_TB": table}, header, meta or {})


def nominal_gain(detector: Detector) -> dict[tuple[int, str], Gain]:
    """The detector's nominal gain for all channels, error not known."""
    return {(ccd, quadrant): Gain(detector.nominal_gain, math.nan) for ccd in CCDS for quadrant in QUADRANTS}


# ---- brighter-fatter kernel ------------------------------------------------------------------------
def load_bf_kernel(path: Path | str) -> dict[tuple[int, str], tuple[np.ndarray, np.ndarray, float]]:
    """Boundary shifts of a ``bf_kernel`` product.

    Returns
    -------
    {(ccd, quadrant): (serial, parallel, gain)}: shifts in 1/e-, [lag parallel, lag serial] as in
    `calcamp.analysis.brighter_fatter.Kernel`, and the gain, e-/ADU, that they belong to.
    """
    import numpy as np

    path = Path(path)
    refuse_pickle(path)
    out = {}
    for name, header in extensions(path):
        match = re.fullmatch(r"SHIFT_([123])([EFGH])", name.upper())
        if match:
            cube = np.asarray(read_image(path, name)[0], float)
            if cube.ndim != 3 or len(cube) < 2:
                raise InputError("is not a brighter-fatter kernel", file=path, where=name)
            out[int(match[1]), match[2]] = (cube[0], cube[1], float(header.get("GAIN") or math.nan))
    if not out:
        raise InputError("holds no brighter-fatter kernel", file=path, expected="extensions SHIFT_1E ...")
    return out


# ---- cross-talk ----------------------------------------------------------------------------------
CROSSTALK_UNITS = {"full_scale": "ADU", "full_scale_err": "ADU"}
CROSSTALK_WORDS = {"ccd": "of the victim", "full_scale": "effect of a source at full scale (65536 ADU)"}


def crosstalk_images(coefficient: np.ndarray, err: np.ndarray, **more: np.ndarray) -> list[tuple]:
    """Images of a ``crosstalk`` product: rows are sources, columns victims, both 1E .. 3H; `more` by extension name."""
    return [
        ("COEFF", coefficient, "", {"ROWS": "source 1E..3H", "COLUMNS": "victim 1E..3H"}),
        ("ERROR", err, "", {}),
        *((name, image, "", {}) for name, image in more.items()),
    ]


def load_crosstalk(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """(coefficients, errors) of a ``crosstalk`` product, [source, victim] (12, 12), NaN where not measured."""
    import numpy as np

    path = Path(path)
    refuse_pickle(path)
    images = [np.asarray(read_image(path, name)[0], float) for name in ("COEFF", "ERROR")]
    for image in images:
        if image.shape != (12, 12):
            raise InputError("is not a cross-talk matrix", file=path, expected="12 x 12 channels")
    return images[0], images[1]


# ---- workbooks of the predecessor ----------------------------------------------------------------
def read_xlsx_table(path: Path | str, sheet: str) -> list[dict]:
    """A sheet of a table product as rows; the first row with two or more texts names the columns.

    Only values are read, formulas are not followed. A workbook that unpacks to more than
    `MAX_XLSX_BYTES` is refused.
    """
    path = Path(path)
    _check_zip(path)
    import warnings

    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                if sheet not in book.sheetnames:
                    raise InputError(
                        f"has no sheet {sheet}",
                        file=path,
                        expected=f"one of {', '.join(book.sheetnames[:8])}",
                    )
                cells = list(book[sheet].iter_rows(values_only=True, max_row=MAX_XLSX_ROWS, max_col=200))
            finally:
                book.close()
    except InputError:
        raise
    except Exception as error:  # whatever a damaged workbook makes of the library
        raise InputError(
            f"is not a usable workbook ({type(error).__name__})", file=path, where=f"sheet {sheet}"
        ) from error
    start = next(
        (i for i, row in enumerate(cells) if sum(isinstance(v, str) and bool(v.strip()) for v in row) >= 2),
        None,
    )
    if start is None:
        raise InputError("has no header row", file=path, where=f"sheet {sheet}")
    names = [str(value).strip() if value is not None else "" for value in cells[start]]
    rows = [
        dict(zip(names, row, strict=False))
        for row in cells[start + 1 :]
        if any(value is not None for value in row)
    ]
    return [{name: value for name, value in row.items() if name} for row in rows]


def _check_zip(path: Path) -> None:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError("is not a workbook", file=path, expected=".xlsx") from error
    if total > MAX_XLSX_BYTES:
        raise InputError(
            "unpacks to too many bytes for a table", file=path, expected=f"at most {MAX_XLSX_BYTES >> 20} MB"
        )


def write_xlsx_table(
    path: Path | str,
    sheets: Mapping[str, Sequence[Mapping[str, object]]],
    header: Mapping[str, object],
    meta: Mapping[str, object],
) -> Path:
    """Write a table product in the predecessor's layout, atomically.

    Sheets ``Header`` and ``Meta``: A1 title, from row 5 key in A and the value's Python text in B. Then one
    sheet per table: an index column and a header row. Texts are written as texts, never as formulas.
    """
    import openpyxl

    path = Path(path)
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, pairs in (("Header", header), ("Meta", meta)):
        page = book.create_sheet(title)
        _put(page, 1, 1, title)
        for row, (key, value) in enumerate(pairs.items(), start=5):
            _put(page, row, 1, str(key))
            _put(page, row, 2, repr(value))
    for title, rows in sheets.items():
        page = book.create_sheet(title[:31])
        names = list(rows[0]) if rows else []
        for column, name in enumerate(names, start=2):
            _put(page, 1, column, name)
        for number, row in enumerate(rows):
            _put(page, number + 2, 1, number)
            for column, name in enumerate(names, start=2):
                _put(page, number + 2, column, row.get(name))
    content = io.BytesIO()
    book.save(content)
    return write_atomic(path, content.getvalue())


def _put(page, row: int, column: int, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if isinstance(value, str):
        value = "".join(c for c in value if c.isprintable())
    cell = page.cell(row=row, column=column, value=value)
    if isinstance(value, str):
        cell.data_type = "s"  # a text that begins with = stays a text
