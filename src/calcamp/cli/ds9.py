"""``calcamp ds9``: images of a day-folder into DS9, one named instance only."""

from __future__ import annotations

import glob
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
TEMPLATE = "EUC_%i_*D*T_ROE%i_CCD%i.fits*"


def find_image(folder: Path, template: str, obsid: int, roe: int, ccd: int) -> Path | None:
    """The image of an OBSID: the template filled with OBSID, ROE and CCD, then matched; None when there is none."""
    name = template % (obsid, roe, ccd)
    found = sorted(p for p in folder.glob(name) if p.is_file())
    return found[0] if found else None


def spots_text(path: Path, ccd: int | None) -> str:
    """Regions of the spots of a ``lock`` table: columns x_ccd, y_ccd (pixels of the image from 0), star, quadrant."""
    from calcamp.data.files import InputError
    from calcamp.data.tables import table_rows
    from calcamp.monitor.ds9 import spots_region

    rows = [r for r in table_rows(path) if ccd is None or r.get("ccd") in (None, ccd)]
    pair = next(
        (p for p in (("x_ccd", "y_ccd"), ("x", "y")) if rows and all(c in rows[0] for c in p)),
        None,
    )
    if pair is None:
        raise InputError(
            "has no positions",
            file=path,
            expected="columns x_ccd and y_ccd, such as the table stars of a test",
        )
    spots = [
        (r[pair[0]], r[pair[1]], f"{r.get('quadrant', '')}{r.get('star', r.get('spot', ''))}")
        for r in rows
        if r[pair[0]] is not None and r[pair[1]] is not None
    ]
    return spots_region(spots)


def mask_text(path: Path) -> str:
    """Regions of the bad pixels of a mask (last extension)."""
    from calcamp.data.fitsfile import read_image
    from calcamp.monitor.ds9 import mask_region

    text, left_out = mask_region(read_image(path)[0])
    if left_out:
        print(f"{path.name}: {left_out} of the smallest runs of bad pixels are left out", file=sys.stderr)
    return text


@app.command()
def ds9(
    first: Annotated[int | None, typer.Argument(help="first OBSID")] = None,
    last: Annotated[int | None, typer.Argument(help="last OBSID; the first one by default")] = None,
    path: Annotated[Path, typer.Option("--path", "-p", help="day-folder")] = Path("."),
    roe: Annotated[int, typer.Option("--roe", "-r", help="ROE number")] = 1,
    ccd: Annotated[
        list[int] | None, typer.Option("--ccd", "-c", help="CCD; may be given more than once", min=1, max=3)
    ] = None,
    template: Annotated[
        str,
        typer.Option("--template", "-t", help="file name with %i for OBSID, ROE, CCD, and * for the rest"),
    ] = TEMPLATE,
    target: Annotated[
        str | None, typer.Option("--target", "-d", help="title or access point of the DS9")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="start a DS9 of its own")] = False,
    tile: Annotated[bool, typer.Option("--tile", help="show all frames side by side")] = False,
    prepared: Annotated[Path | None, typer.Option(help="folder of prepared images: TEST/ccd<n>/prep")] = None,
    mask: Annotated[Path | None, typer.Option(help="mask whose bad pixels are drawn as regions")] = None,
    spots: Annotated[Path | None, typer.Option(help="table of the lock whose spots are drawn")] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", help="any FITS file; may be given more than once")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="list the DS9s that run")] = False,
) -> None:
    """Load images into DS9, image k into frame k, zoomed to fit, histogram-equalised within zscale limits.

    With one DS9 open that one is used; with several, --target is needed. --new starts one.

    Example:  calcamp ds9 -p data/21_Feb_80 -c 1 -c 2 -c 3 17283 17284 --new --tile
    """
    from calcamp.data.files import InputError
    from calcamp.monitor.ds9 import Ds9

    program = Ds9()
    if show_list:
        running = program.instances()
        for instance in running:
            print(f"{instance.title}\t{instance.method}")
        if not running:
            print("no DS9 is running; --new starts one", file=sys.stderr)
        return
    images = list(files or [])
    for image in images:
        if not image.is_file():
            raise InputError("no such file", file=image)
    folder = prepared or path
    if first is not None and not folder.is_dir():
        raise InputError("no such folder", file=folder, remedy="Give the day-folder with --path")
    if first is not None:
        images += _chosen(
            path, prepared, template, first, last if last is not None else first, roe, ccd or [1]
        )
    if not images:
        raise InputError(
            "no image to show" if first is not None else "give OBSIDs or --file",
            file=folder if first is not None else None,
        )
    number = ccd[0] if ccd and len(ccd) == 1 else None
    text = (mask_text(mask) if mask else "") + (spots_text(spots, number) if spots else "")
    instance = program.start(target) if new else program.resolve(target)
    count = program.show(
        instance, enumerate(images, 1), dict.fromkeys(range(1, len(images) + 1), text) if text else None, tile
    )
    print(f"{count} images in DS9 {instance.title}")


def _chosen(
    path: Path, prepared: Path | None, template: str, first: int, last: int, roe: int, ccds: list[int]
) -> list[Path]:
    """Images of a span of OBSIDs; a missing one is named and skipped."""
    if last < first or last - first > 500:
        raise typer.BadParameter("the last OBSID is not below the first, and at most 500 above")
    if not re.fullmatch(r"(?:[^%/]|%i){1,200}", template) or template.count("%i") != 3:
        raise typer.BadParameter("the template holds %i three times (OBSID, ROE, CCD) and no /")
    found = []
    for obsid in range(first, last + 1):
        for ccd in ccds:
            if prepared is not None:
                names = sorted(prepared.glob(f"*{glob.escape(str(obsid))}*CCD{ccd}*.fits"))
                image = names[0] if names else None
            else:
                image = find_image(path, template, obsid, roe, ccd)
            if image is None:
                print(f"OBSID {obsid} CCD{ccd}: no image, skipped", file=sys.stderr)
            else:
                found.append(image)
    return found
