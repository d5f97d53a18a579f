"""``calcamp mask``: cosmetics masks of a CCD without a session, on the code of COSMETICS00."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

#: Keys of the request; those of the predecessor, which are read as they are.
_KEYS = frozenset(
    (
        "CCD",
        "sn_ccd",
        "tag",
        "outpath",
        "doDarkMask",
        "doFlatMask",
        "doMerge",
        "inputs_dkmask",
        "inputs_flmask",
        "detector",
    )
)
_INPUTS = frozenset(("OBSID_list", "datapath", "thresholds"))


@app.command()
def mask(
    request: Annotated[
        Path, typer.Argument(help="JSON: CCD, sn_ccd, tag, outpath, inputs_dkmask, inputs_flmask")
    ],
    detector: Annotated[str, typer.Option(help="CCD of the images")] = "ccd273",
) -> None:
    """Make the dark, flat and merged masks of one CCD from lists of images.

    The JSON is that of the predecessor's mask maker. `thresholds` [low, high] replace the least level above the
    surroundings of frames without light (high, ADU) and the limits of dead and over-responsive pixels (flat); what
    stands out by less than 5.5 local scatters is never taken.

    Example:  calcamp mask mask_CCD1.json
    """
    from calcamp.config.lookup import load_detector
    from calcamp.data.files import InputError

    made = make(_read(request), load_detector(detector), request.resolve().parent)
    if not made:
        raise InputError("no mask was asked for", file=request, expected="doDarkMask or doFlatMask true")
    for line in made:
        print(line)


def _read(path: Path) -> dict:
    from calcamp.data.files import InputError, read_json

    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(
            "holds no object", file=path, expected='{"CCD": 1, "sn_ccd": ..., "inputs_dkmask": {...}, ...}'
        )
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}", file=path, expected=", ".join(sorted(_KEYS)))
    for key in ("CCD", "sn_ccd"):
        if key not in content:
            raise InputError(f"{key} is missing", file=path, expected="CCD (1 to 3) and sn_ccd")
    for key in ("inputs_dkmask", "inputs_flmask"):
        extra = sorted(set(content.get(key) or {}) - _INPUTS)
        if extra:
            raise InputError(
                f"unknown key {key}.{extra[0]!r}", file=path, expected=", ".join(sorted(_INPUTS))
            )
    return content


def _ccd(request: dict) -> int:
    from calcamp.data.files import InputError

    text = str(request["CCD"]).upper().removeprefix("CCD")
    if text not in ("1", "2", "3"):
        raise InputError(f"CCD {request['CCD']!r}", expected="1, 2 or 3")
    return int(text)


def _obsids(value, folder: Path) -> list[int]:
    """OBSIDs of a list, or of a text file with one a line."""
    from calcamp.data.files import InputError

    if isinstance(value, str):
        path = folder / value
        if not path.is_file():
            raise InputError("no such list of OBSIDs", file=path)
        value = path.read_text(encoding="utf-8").split()
    try:
        return [int(v) for v in value]
    except (TypeError, ValueError) as error:
        raise InputError(f"OBSID_list {value!r}", expected="numbers, or a file with one a line") from error


def _frames(inputs: dict, ccd: int, detector, folder: Path) -> list:
    """Prepared frames of one list."""
    from calcamp.analysis.prepare import prepare
    from calcamp.data.files import InputError
    from calcamp.data.raw import read_raw

    root = folder / str(inputs.get("datapath", "."))
    frames = []
    for obsid in _obsids(inputs.get("OBSID_list", []), folder):
        found = sorted(
            p
            for p in root.glob(f"EUC_{obsid}_*_CCD{ccd}.fits*")
            if p.name.endswith((".fits", ".fits.gz", ".fits.fz"))
        )
        if len(found) != 1:
            words = "no image" if not found else f"{len(found)} images"
            raise InputError(f"{words} of OBSID {obsid}, CCD{ccd}", file=root)
        raw = read_raw(found[0], detector)
        frames.append(prepare(raw.data, detector, {"offset": "smooth", "scan": "pre"}, grow=0))
        print(f"{found[0].name}", file=sys.stderr)
    return frames


def make(request: dict, detector, folder: Path) -> list[str]:
    """Write the masks asked for; returns the paths."""
    from dataclasses import replace

    import numpy as np

    from calcamp.analysis.cosmetics import Cuts, merge, search_dark, search_flat
    from calcamp.data.files import InputError
    from calcamp.data.fitsfile import write_product
    from calcamp.data.products import write_dq, write_mask
    from calcamp.detector.arrays import assemble
    from calcamp.detector.dq import BADMASK, DQ
    from calcamp.detector.geometry import QUADRANTS

    ccd, serial = _ccd(request), str(request["sn_ccd"])
    tag = str(request.get("tag") or "")
    into = folder / str(request.get("outpath") or ".")
    into.mkdir(parents=True, exist_ok=True)
    image = detector.region("img", trimmed=False)
    cuts = Cuts(old_column=detector.min_column_length)
    searches: dict[str, dict] = {}
    header = {"SN": serial, "CCD": ccd, "FUNCTION": "calcamp mask"}
    names, made = {}, []

    def old(dq):
        return ((dq & np.uint32(BADMASK | DQ.WHOLE_COL)) != 0).astype(np.int32)

    def whole(parts, dtype):
        planes = {}
        for quadrant, part in parts.items():
            plane = np.zeros(detector.quadrant_shape, dtype)
            plane[image] = part
            planes[quadrant] = plane
        return assemble(planes, detector)

    for kind, switch, key, prefix in (
        ("dark", "doDarkMask", "inputs_dkmask", "DKMASK"),
        ("flat", "doFlatMask", "inputs_flmask", "FLMASK"),
    ):
        if not request.get(switch, key in request):
            continue
        inputs = request.get(key) or {}
        frames = _frames(inputs, ccd, detector, folder)
        if not frames:
            raise InputError(f"{key}: no OBSIDs", expected="OBSID_list with at least one")
        low, high = _thresholds(inputs, kind, cuts)
        own = replace(cuts, dark_least=high) if kind == "dark" else replace(cuts, dead=low, over=high)
        found = {}
        for quadrant in QUADRANTS:
            if kind == "dark":
                areas = [f.data[quadrant][:, image[1]] for f in frames]
                found[quadrant] = search_dark(areas, detector.image_rows, own)
            else:
                found[quadrant] = search_flat([f.image(quadrant) for f in frames], own)
        searches[kind] = found
        names[kind] = f"EUC_{prefix}_{tag}_CCD{ccd}_SN_{serial}.fits"
        write_product(
            into / names[kind],
            header
            | {
                "MASKTYPE": prefix.lower(),
                "THRESH": f"[{low:g}, {high:g}]",
                "SUBBGD": kind == "dark",
                "NORMED": kind == "flat",
            },
            [
                ("MASK", whole({q: old(s.dq) for q, s in found.items()}, np.int32), ""),
                (
                    "DEFECTS",
                    whole({q: s.map for q, s in found.items()}, np.float32),
                    "ADU" if kind == "dark" else "",
                ),
            ],
        )
        made.append(str(into / names[kind]))
    if searches and request.get("doMerge", True):
        merged = {
            q: merge(
                detector.image_shape,
                searches.get("dark", {}).get(q),
                searches.get("flat", {}).get(q),
                cuts=cuts,
            ).dq
            for q in QUADRANTS
        }
        sources = {"DKMASK": names.get("dark", "none"), "FLMASK": names.get("flat", "none")}
        stem = f"{tag}_CCD{ccd}_SN_{serial}.fits"
        write_mask(
            into / f"EUC_MASK_{stem}",
            whole({q: old(dq) for q, dq in merged.items()}, np.int32),
            header | sources,
        )
        write_dq(into / f"EUC_DQ_{stem}", whole(merged, np.uint32), header | sources)
        made += [str(into / f"EUC_MASK_{stem}"), str(into / f"EUC_DQ_{stem}")]
    return made


def _thresholds(inputs: dict, kind: str, cuts) -> tuple[float, float]:
    from calcamp.data.files import InputError

    default = (-1000.0, cuts.dark_least) if kind == "dark" else (cuts.dead, cuts.over)
    given = inputs.get("thresholds")
    if given is None:
        return default
    try:
        low, high = (float(v) for v in given)
    except (TypeError, ValueError) as error:
        raise InputError(f"thresholds {json.dumps(given)}", expected="[low, high]") from error
    return low, high
