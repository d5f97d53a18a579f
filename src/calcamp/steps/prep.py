"""Prepared images as FITS: data and DQ, with every step in the header. A product on request."""

from __future__ import annotations

import sys

from calcamp.steps import runner


def prep(ctx: runner.Context) -> None:
    """Write ``<raw name>_proc.fits`` for every readable exposure of this CCD."""
    from numpy import nanmean

    from calcamp.data.fitsfile import write_product
    from calcamp.detector.geometry import QUADRANTS

    exposures = [e for e in ctx.readable() if e.files.get(ctx.ccd)]
    rows: dict[str, list] = {key: [] for key in ("obsid", "column", "frame", "ccd", "file", "steps")}
    gains = ctx.gains()
    for number, exposure in enumerate(exposures, 1):
        image = ctx.prepared(exposure)
        stem = exposure.files[ctx.ccd]["name"].split(".fits")[0]
        name = f"{stem}_proc.fits"
        header = {
            "OBSID": exposure.obsid,
            "CCD": f"CCD{ctx.ccd}",
            "CCD_SN": ctx.serial,
            "TEST": ctx.test,
            "BLOCKID": ctx.block,
            "RAWFILE": exposure.files[ctx.ccd]["name"],
            "RAWSHA": exposure.files[ctx.ccd]["sha256"],
            **{f"STEP{n}": step for n, step in enumerate(image.steps, 1)},
        }
        # The variance of a pixel follows from these terms: VAR = RN² + 1/12 + max(data, 0) / GAIN + RV.
        for quadrant in QUADRANTS:
            offset = image.offsets[quadrant]
            header[f"OFF_{quadrant}"] = (offset.level, "ADU, mean offset subtracted")
            header[f"RN_{quadrant}"] = (offset.noise, "ADU, read noise in the scan")
            header[f"GAIN_{quadrant}"] = (gains[quadrant][0], "e-/ADU")
            header[f"RV_{quadrant}"] = (float(nanmean(offset.err**2)), "ADU^2, mean variance of the offset")
        write_product(
            ctx.into / name, header, [("DATA", image.frame, "ADU", {}), ("DQ", image.dq_frame, "", {})]
        )
        for key, value in zip(
            rows,
            (exposure.obsid, exposure.column, exposure.frame, ctx.ccd, name, "; ".join(image.steps)),
            strict=True,
        ):
            rows[key].append(value)
        ctx.progress(number, len(exposures))
    ctx.write_table("prepared", rows)


TASKS = {"prep": prep}

if __name__ == "__main__":
    sys.exit(runner.run("prep", TASKS))
