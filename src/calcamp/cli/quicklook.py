"""``calcamp quicklook``: all images of a day-folder as a contact sheet and a page each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
HEADER = [
    "EXTNAME",
    "PROGRAM",
    "OBJECT",
    "OBSID",
    "DATE",
    "EXPTIME",
    "CHINJ",
    "V_TPUMP",
    "S_TPUMP",
    "VSTART",
    "VEND",
    "WAVE",
    "SN_CCD1",
    "SN_CCD2",
    "SN_CCD3",
    "SN_ROE",
    "FPGA_VER",
    "TOI_FL",
    "TOI_TP",
    "TOI_RO",
    "TOI_CH",
    "FLUSHES",
    "SIFLSH",
    "SIFLSH_P",
    "IDL",
    "IDH",
]
PER_SHEET = 12


def region_rows(data, detector) -> list[list[str]]:
    """Quadrant, region, mean, std, min, percentiles, max of the trimmed regions, ADU."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.geometry import QUADRANTS

    rows = []
    for quadrant in QUADRANTS:
        view = quadrant_view(data, quadrant, detector)
        for name in ("pre", "img", "ove"):
            rows_, columns = detector.region(name, trimmed=False)
            part = view[rows_, columns][3:-3, 3:-3]
            if part.size == 0:
                continue
            p = np.percentile(part, (25, 50, 75))
            numbers = (part.mean(), part.std(), part.min(), *p, part.max())
            rows.append([quadrant, name, *(f"{n:.1f}" for n in numbers)])
    return rows


def draw_image(figure, small, data, detector) -> None:
    """The frame and its mean profiles: along columns, and along rows for prescan, image and overscan."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.geometry import QUADRANTS
    from calcamp.report.figures import QUADRANT_COLOURS, REGION_COLOURS

    picture, across, along = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.1, 1, 1)})
    used = small[small > 0]
    low, high = np.percentile(used, (30, 70)) if used.size else (0, 1)
    picture.imshow(small, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1), aspect="equal")
    picture.set_axis_off()
    if detector is None:
        return
    for quadrant in QUADRANTS:
        view = quadrant_view(data, quadrant, detector)
        across.plot(
            view[: detector.image_rows].mean(axis=0), color=QUADRANT_COLOURS[quadrant], lw=0.7, label=quadrant
        )
        for name in ("pre", "img", "ove"):
            rows, columns = detector.region(name)
            along.plot(
                view[rows, columns].mean(axis=1),
                color=REGION_COLOURS[name],
                lw=0.5,
                label=name if quadrant == "E" else None,
            )
    across.set_xlabel("column"), across.set_ylabel("mean [ADU]")
    along.set_xlabel("row"), along.legend()
    across.legend()
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.14, wspace=0.27)


def draw_sheet(figure, items) -> None:
    """Twelve small pictures."""
    axes = figure.subplots(3, 4, squeeze=False)
    from calcamp.monitor.images import zscale

    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, small) in zip(axes.flat, items, strict=False):
        low, high = zscale(small)
        ax.imshow(small, origin="lower", cmap="gray", vmin=low, vmax=high)
        ax.set_title(name, fontsize=6, pad=2)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.01, hspace=0.12, wspace=0.03)


@app.command()
def quicklook(
    day_folder: Annotated[Path, typer.Argument(help="day-folder")],
    into: Annotated[Path, typer.Option(help="folder of the report")] = Path("quicklook"),
    ccd: Annotated[
        list[int] | None, typer.Option("--ccd", "-c", help="CCD; may be given more than once", min=1, max=3)
    ] = None,
    obsid: Annotated[tuple[int, int] | None, typer.Option(help="first and last OBSID")] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="write the PDF too")] = True,
) -> None:
    """Contact sheet of the images of a day-folder, then one page each: header, statistics, picture, profiles.

    Exit 1 when an image cannot be read; the report names it.

    Example:  calcamp quicklook data/21_Feb_80 -c 1 --obsid 17283 17292
    """
    from calcamp.analysis.sums import block_means
    from calcamp.cli.document import write_document
    from calcamp.data.files import InputError
    from calcamp.data.raw import RawError, read_raw
    from calcamp.monitor.images import BLOCK, ImageIndex, detector_of, known_detectors
    from calcamp.report.base import Cell, Facts, Note, Section, TableBlock
    from calcamp.report.figures import FigureBook

    if not day_folder.is_dir():
        raise InputError("no such folder", file=day_folder)
    index = ImageIndex(day_folder)
    index.look()
    wanted = [
        (o, c)
        for o in sorted(index.names)
        for c in sorted(index.names[o])
        if (not ccd or c in ccd) and (obsid is None or obsid[0] <= o <= obsid[1])
    ]
    if not wanted:
        raise InputError("no images to show", file=day_folder)
    book, detectors = FigureBook(into), known_detectors(day_folder)
    sections, smalls, bad = [], [], 0
    for number, (o, c) in enumerate(wanted, 1):
        path = index.path(o, c)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(wanted)} images", end="", file=sys.stderr)
        title = f"OBSID {o}, CCD{c}"
        try:
            raw = read_raw(path, verify=False)
        except RawError as error:
            bad += 1
            sections.append(Section(title, [Note(f"{path.name}: {error.text}", "bad")]))
            continue
        detector = detector_of(raw.data.shape, detectors)
        small = block_means(raw.data, max(1, min(BLOCK, min(raw.data.shape) // 128)))
        smalls.append((f"{o} CCD{c}", small))
        pairs = [(key, str(raw.header.get(key, "–"))[:60]) for key in HEADER]
        figure = book.make(
            f"image_{o}_CCD{c}",
            f"{path.name}: grey from the 30th to the 70th percentile; mean per column and per row",
            lambda f, s=small, d=raw.data, t=detector: draw_image(f, s, d, t),
            height=2.3,
        )
        blocks: list = [Facts(pairs, columns=2), figure]
        if detector is not None:
            header = ["Q", "Region", "mean", "std", "min", "p25", "p50", "p75", "max"]
            rows = [[Cell(text) for text in row] for row in region_rows(raw.data, detector)]
            blocks.append(
                TableBlock(header, rows, caption="Regions less 3 pixels at each side, ADU", compact=True)
            )
        else:
            blocks.append(Note(f"No detector has frames of {raw.data.shape}", "warning"))
        sections.append(Section(title, blocks, page_break=True))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    sheets = [
        book.make(
            f"sheet_{n // PER_SHEET + 1:02d}",
            "Contact sheet, zscale",
            lambda f, n=n: draw_sheet(f, smalls[n : n + PER_SHEET]),
            height=5.6,
        )
        for n in range(0, len(smalls), PER_SHEET)
    ]
    name = f"quicklook_{day_folder.resolve().name}" + (f"_CCD{''.join(map(str, ccd))}" if ccd else "")
    into.mkdir(parents=True, exist_ok=True)
    lead = [f"{len(wanted)} images, {bad} of them cannot be read"]
    for path in write_document(
        into,
        name,
        f"Quick look, {day_folder.resolve().name}",
        lead,
        [Section("Contact sheet", sheets), *sections],
        pdf,
    ):
        print(path)
    raise typer.Exit(1 if bad else 0)
