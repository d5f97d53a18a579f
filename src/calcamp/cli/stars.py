"""``calcamp stars``: a first pattern of point sources from one image, on the code of the star lock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def stars(
    image: Annotated[Path, typer.Argument(help="raw image with point sources")],
    chamber: Annotated[
        str, typer.Option(help="chamber whose pattern is laid over: a name, or a path")
    ] = "B_NOSTROMO",
    ccd: Annotated[int, typer.Option(help="CCD, where the file's name does not tell", min=0, max=3)] = 0,
    into: Annotated[
        Path | None, typer.Option(help="table of the pattern; default Pattern_CCDn[_tag].txt")
    ] = None,
    tag: Annotated[str, typer.Option(help="added to the name")] = "",
    identify: Annotated[
        Path | None, typer.Option(help="corrections: lines 'EA 12', source number of the list")
    ] = None,
    detector: Annotated[str, typer.Option(help="CCD of the image")] = "ccd273",
    replace: Annotated[bool, typer.Option("--replace", help="overwrite an existing table")] = False,
) -> None:
    """Find the 20 spots of a CCD and write their positions in silicon coordinates.

    The nominal pattern is laid over the sources by shift and turn. Beside the table a list of all sources and a DS9
    region file are written; correct a wrong name with --identify and the number of the source.

    Example:  calcamp stars EUC_17400_120319D101112T_ROE1_CCD1.fits --tag first
    """
    from calcamp.config.lookup import load_detector
    from calcamp.data.files import InputError, write_atomic

    geometry = load_detector(detector)
    number = ccd or _ccd_of(image)
    target = into or image.parent / f"Pattern_CCD{number}{f'_{tag}' if tag else ''}.txt"
    if target.exists() and not replace:
        raise InputError("is there already", file=target, remedy="Give --replace or another --into")
    nominal = _pattern(chamber, geometry, number)
    sources = find(image, geometry)
    chosen, transform = assign(nominal, sources, geometry)
    for name, source in _corrections(identify, len(sources)).items():
        chosen[name] = source
    missing = [name for name in nominal if chosen.get(name) is None]
    write_atomic(target, _table(nominal, sources, chosen))
    write_atomic(target.with_suffix(".sources.txt"), _list(sources))
    write_atomic(target.with_suffix(".reg"), _regions(sources, chosen, geometry))
    print(f"{target}: {len(nominal) - len(missing)} of {len(nominal)} spots, {len(sources)} sources")
    print(transform)
    if missing:
        print(f"not found: {', '.join(missing)}; name them with --identify", file=sys.stderr)
        raise typer.Exit(1)


def _ccd_of(image: Path) -> int:
    import re

    from calcamp.data.files import InputError

    match = re.search(r"_CCD([123])(?=[_.])", image.name)
    if not match:
        raise InputError("the name does not tell the CCD", file=image, remedy="Give --ccd")
    return int(match[1])


def _pattern(chamber: str, detector, ccd: int) -> dict[str, tuple[float, float]]:
    """Nominal positions of the 20 spots on this detector, silicon coordinates."""
    from calcamp.config.lookup import load_chamber
    from calcamp.data.files import InputError

    profile = load_chamber(chamber, Path.cwd())
    if profile.pattern is None:
        raise InputError(
            f"chamber {profile.chamber} has no pattern", file=profile.file, expected="pattern: a name"
        )
    return {spot: tuple(xy) for spot, xy in profile.spots().on(detector)[ccd].items()}


def find(image: Path, detector) -> list[dict]:
    """Star-like sources of all quadrants, silicon and image coordinates, brightest first."""
    import numpy as np

    from calcamp.analysis.lock import find_sources, star_like
    from calcamp.data.raw import read_raw
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.geometry import QUADRANTS

    raw = read_raw(image, detector).data
    area = detector.region("img", trimmed=False)
    out = []
    for quadrant in QUADRANTS:
        view = quadrant_view(raw, quadrant, detector)[area].astype(np.float32)
        view -= np.median(view[:, ::4], axis=1, keepdims=True)
        found = find_sources(view)
        found = found.where(star_like(found))
        for k in range(len(found)):
            column, row = float(found.x[k]) + area[1].start, float(found.y[k])
            x, y = detector.qcan_to_ccd(column, row, quadrant)
            px, py = detector.ccd_to_phys(x, y, quadrant)
            out.append(
                {
                    "quadrant": quadrant,
                    "x": x,
                    "y": y,
                    "px": px,
                    "py": py,
                    "flux": float(found.flux[k]),
                    "width": float(found.width[k]),
                }
            )
    return sorted(out, key=lambda s: -s["flux"])


def assign(nominal: dict, sources: list[dict], detector) -> tuple[dict, str]:
    """({spot: index of its source or None}, the transformation in words)."""
    import math

    import numpy as np

    from calcamp.analysis.lock import lock

    names = list(nominal)
    rows, columns = detector.phys_shape

    def on_silicon(xy):
        return np.array([detector.quadrant_at_phys(float(x), float(y)) is not None for x, y in xy])

    places = np.array([[s["px"], s["py"]] for s in sources], float).reshape(-1, 2)
    found = lock(
        np.array([nominal[n] for n in names], float),
        places,
        ((columns - 1) / 2, (rows - 1) / 2),
        on_silicon,
    )
    if found.transform is None:
        return dict.fromkeys(names), f"no match: {found.reason}"
    chosen = {name: (int(k) if k >= 0 else None) for name, k in zip(names, found.source, strict=True)}
    t = found.transform
    words = ", ".join(
        f"{key} {math.degrees(getattr(t, key)):.3f} deg"
        if key == "rotation"
        else f"{key} {getattr(t, key):.4f}"
        for key in ("scale", "rotation")
        if hasattr(t, key)
    )
    return (
        chosen,
        f"pattern to image: {words}; rms {found.rms:.2f} px{'' if found.ok else f'; {found.reason}'}",
    )


def _corrections(path: Path | None, number: int) -> dict[str, int]:
    from calcamp.data.files import InputError

    if path is None:
        return {}
    out = {}
    for k, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not words[1].isdecimal() or not 1 <= int(words[1]) <= number:
            raise InputError(
                f"line {k}: {line!r}",
                file=path,
                expected=f"a spot and a source from 1 to {number}, e.g. 'EA 12'",
            )
        out[words[0]] = int(words[1]) - 1
    return out


def _table(nominal, sources, chosen) -> str:
    lines = ["# pattern of point sources, silicon coordinates, 0-based pixels", "ID\tX\tY"]
    for name in nominal:
        k = chosen.get(name)
        if k is not None:
            lines.append(f"{name}\t{sources[k]['px']:.2f}\t{sources[k]['py']:.2f}")
    return "\n".join(lines) + "\n"


def _list(sources) -> str:
    lines = ["# number quadrant x y x_silicon y_silicon flux_ADU width_px"]
    lines += [
        f"{k} {s['quadrant']} {s['x']:.2f} {s['y']:.2f} {s['px']:.2f} {s['py']:.2f} {s['flux']:.0f} {s['width']:.2f}"
        for k, s in enumerate(sources, 1)
    ]
    return "\n".join(lines) + "\n"


def _regions(sources, chosen, detector) -> str:
    """DS9 regions, image coordinates (from 1): all sources by number, the spots by name."""
    lines = ["# Region file format: DS9", "image"]
    named = {k: name for name, k in chosen.items() if k is not None}
    for k, s in enumerate(sources):
        text = named.get(k, str(k + 1))
        colour = "green" if k in named else "yellow"
        lines.append(f"circle({s['x'] + 1:.2f},{s['y'] + 1:.2f},15) # color={colour} text={{{text}}}")
    return "\n".join(lines) + "\n"
