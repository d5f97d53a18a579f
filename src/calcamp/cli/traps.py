"""Reading the trap catalogues of tests and writing the joined one: what ``calcamp products traps`` does."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_UNITS = {
    **dict.fromkeys(("tau", "tau_err", "tau_low", "tau_high"), "us"),
    **dict.fromkeys(("row", "image_column"), "pix"),
    **dict.fromkeys(("energy", "energy_err"), "eV"),
    **dict.fromkeys(("temperature", "temperature_err"), "K"),
    "cross_section": "cm2",
    "level": "ADU",
    "idl": "V",
    "pairs": "pix",
}
_TEXT = {
    "trap": "number of the trap in this table",
    "row": "pixel of the trap, image area, canonical; -1 in the register",
    "image_column": "column of the image area, or place in the register",
    "position": "electrode of the trap, from the node; quarters tell its half",
    "modes": "pumping modes that showed it",
    "n_found": "tests that found it",
    "n_searched": "tests that could have found it",
    "tau": "emission time at the reference temperature, weighted mean; not given where the tests differ",
    "tau_low": "5 % end",
    "tau_high": "95 % end",
    "is_limit": "tau_low and tau_high are limits",
    "chi2": "of the tests about the common emission time",
    "energy": "from tests at different temperatures",
    "pc": "probability of capture, weighted mean where the tests agree",
    "status": "ok; differs: emission times do not agree; limit; poor: no usable fit",
}


@dataclass
class Joined:
    """The joined catalogue of a block."""

    block: str
    header: dict
    traps: dict
    measurements: dict
    tests: dict

    def write(self, path: Path) -> None:
        """FITS (tables TRAPS, MEASUREMENTS, TESTS) or, by the ending, ECSV (the joined traps)."""
        from calcamp.data.files import InputError

        if path.suffix == ".ecsv":
            from calcamp.data.tables import write_table

            text = {name: words for name, words in _TEXT.items() if name in self.traps}
            about = {key.lower(): v[0] if isinstance(v, tuple) else v for key, v in self.header.items()}
            tests = [
                dict(zip(self.tests, row, strict=True)) for row in zip(*self.tests.values(), strict=True)
            ]
            write_table(path, self.traps, _units(self.traps), {**about, "tests": tests}, text)
        elif path.suffix == ".fits":
            from calcamp.data.fitsfile import write_product

            tables = [
                (name, _arrays(columns), _units(columns))
                for name, columns in (
                    ("TRAPS", self.traps),
                    ("MEASUREMENTS", self.measurements),
                    ("TESTS", self.tests),
                )
            ]
            write_product(path, self.header, [], tables)
        else:
            raise InputError("is no name for a table", file=path, expected="....fits or ....ecsv")

    def summary(self) -> dict:
        """Counts in plain data and in words."""
        status = Counter(str(s) for s in self.traps["status"])
        several = sum(1 for n in self.traps["n_found"] if n > 1)
        total = len(self.traps["trap"])
        parts = ", ".join(f"{n} {name}" for name, n in sorted(status.items()))
        tests = {}
        for row in zip(*self.tests.values(), strict=True):
            item = dict(zip(self.tests, row, strict=True))
            own = tests.setdefault(
                item["number"],
                {
                    "number": item["number"],
                    "session": item["session"],
                    "test": item["test"],
                    "traps": 0,
                    "kelvin": [],
                },
            )
            own["traps"] += item["n_traps"]
            if math.isfinite(item["temperature"]) and item["temperature"] not in own["kelvin"]:
                own["kelvin"].append(item["temperature"])
        for own in tests.values():
            kelvin = own.pop("kelvin")
            own["temperatures"] = f"{sum(kelvin) / len(kelvin):.2f} K" if kelvin else "temperature not known"
        return {
            "traps": total,
            "found_by_several": several,
            "status": dict(status),
            "tests": list(tests.values()),
            "words": f"{total} traps, {several} found by more than one test ({parts or 'none'})",
        }


def _units(columns) -> dict[str, str]:
    out = {}
    for name in columns:
        base = name.rsplit("_", 1)[0] if name.rsplit("_", 1)[-1].isdigit() else name
        if base in _UNITS:
            out[name] = _UNITS[base]
    return out


def _arrays(columns: dict) -> dict:
    import numpy as np

    return {name: np.asarray(values) for name, values in columns.items()}


def join(folders: list[Path], reference: float, activation: float) -> Joined:
    """Read the catalogues of tests and join them.

    Raises
    ------
    InputError : no trap catalogue, another block, another CCD in the same place, or one test given twice.
    """
    from calcamp.analysis.trap_catalogue import join_traps
    from calcamp.data.products import provenance

    found = [_read(number, folder) for number, folder in enumerate(folders, 1)]
    _same_block(found)
    catalogues = [c for one in found for c in one["catalogues"]]
    traps, measurements = join_traps(catalogues, reference, activation)
    names = (
        "number session test ccd serial quadrant register temperature temperature_err level idl pairs n_traps"
    )
    rows = [row for one in found for row in one["rows"]]
    tests = {name: [row[name] for row in rows] for name in names.split()}
    sessions = sorted({one["session"] for one in found})
    header = provenance(
        session=" ".join(sessions),
        block=found[0]["block"],
        chamber=found[0]["chamber"],
        test=" ".join(one["test"] for one in found),
        inputs={name: digest for one in found for name, digest in one["inputs"].items()},
    )
    header |= {
        "REFTEMP": (reference, "K, temperature of tau"),
        "ENERGY": (activation, "eV, assumed where there is one temperature"),
        "NTRAPS": len(traps["trap"]),
    }
    header |= {f"TEST{one['number']}": f"{one['session']}/{one['test']}" for one in found}
    return Joined(found[0]["block"], header, traps, measurements, tests)


def _read(number: int, folder: Path) -> dict:
    from calcamp.analysis.trap_catalogue import Catalogue
    from calcamp.cli.products import _made, _unchanged, _verdict
    from calcamp.data.files import InputError
    from calcamp.data.fitsfile import read_fits_table

    verdict = _verdict(folder)
    made = _made(folder, verdict, "traps")
    if verdict["status"] == "failed":
        raise InputError(
            f"{verdict['test']} has failed sub-tasks", file=folder, remedy="run the session again first"
        )
    out = {
        "number": number,
        "folder": folder,
        "block": verdict["block"],
        "chamber": verdict.get("chamber") or "",
        "session": verdict["session"],
        "test": verdict["test"],
        "serials": {},
        "catalogues": [],
        "rows": [],
        "inputs": {},
    }
    for product in made:
        path = folder / product["file"]
        info = _unchanged("traps", path, product)
        register = str(info.header.get("REGISTER", "")).strip()
        temperature, error = (_number(info.header.get(key)) for key in ("CCDTEMP", "CCDTERR"))
        traps = read_fits_table(path, "TRAPS")
        catalogue = Catalogue(number, int(info.ccd), register, temperature, error, traps)
        out["catalogues"].append(catalogue)
        out["serials"][info.ccd] = info.serial
        out["inputs"][f"{verdict['session']}/{verdict['test']}/{path.name}"] = info.sha256
        search = read_fits_table(path, "SEARCH")
        for values in zip(*search.values(), strict=True):
            row = dict(zip(search, values, strict=True))
            out["rows"].append(
                {
                    **{key: out[key] for key in ("number", "session", "test")},
                    "ccd": info.ccd,
                    "serial": info.serial,
                    "quadrant": row["quadrant"],
                    "register": register,
                    "temperature": temperature,
                    "temperature_err": error,
                    **{key: row[key] for key in ("level", "idl", "pairs")},
                    "n_traps": traps["quadrant"].count(row["quadrant"]),
                }
            )
    return out


def _number(value) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _same_block(found: list[dict]) -> None:
    from calcamp.data.files import InputError
    from calcamp.data.products import check_serial

    seen = {}
    for one in found:
        if one["block"] != found[0]["block"]:
            raise InputError(
                f"is of block {one['block']}", file=one["folder"], expected=f"block {found[0]['block']}"
            )
        name = f"{one['session']}/{one['test']}"
        if name in seen:
            raise InputError(f"{name} is given twice", file=one["folder"], expected="each test once")
        seen[name] = one
        for ccd, serial in one["serials"].items():
            check_serial(serial, found[0]["serials"].get(ccd), one["folder"], "trap catalogue", ccd)
