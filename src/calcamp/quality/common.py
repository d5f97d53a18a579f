"""Checks that every family shares: offsets, gradients, noise, saturated and lost pixels, dead quadrants."""

from __future__ import annotations

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.quality.family import Case, Check, FamilyRules
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number

#: A quadrant whose plain standard deviation stays below this is dead. The noise floor of a live one is
#: 0.86 ADU; a constant level gives 0.
DEAD_NOISE_ADU = 0.2
#: A product with a larger part invalid is a bad product (analysis core, 1.9).
INVALID_FRACTION = 0.2


def gradient_rows(case: Case, limit: Limit) -> list[dict]:
    """Rows of table ``offsets`` with the prescan's offset of the same frame taken off."""
    rows = case.rows("offsets")
    pre = {
        (r["obsid"], r["ccd"], r["quadrant"]): number(r.get("offset"))
        for r in rows
        if r.get("region") == "pre"
    }
    out = []
    for row in rows:
        if row.get("region") == "pre":
            continue
        base, value = pre.get((row["obsid"], row["ccd"], row["quadrant"])), number(row.get("offset"))
        known = base is not None and value is not None
        out.append({**row, limit.value: value - base if known else None})
    return out


COMMON_CHECKS = (
    Check("offset"),
    Check("offset_gradient", rows=gradient_rows),
    Check("read_noise"),
    Check("saturation"),
    Check("nonsaturation"),
    Check("lost_pixels"),
)


def block_offset(case: Case, row, limit: Limit) -> float | None:
    """Expected offset of the block's quadrant, ADU."""
    return case.offset(row.get("ccd"), row.get("quadrant"))


REFERENCES = {"block_offset": block_offset}


def dead_quadrants(case: Case) -> list[Flag]:
    """DEADQUAD and DEADCCD from the noise of raw frames: every region of every frame constant."""
    noise: dict[tuple, list[float]] = {}
    level: dict[tuple, list[float]] = {}
    for row in case.rows("offsets"):
        key = (row["ccd"], row["quadrant"])
        plain = number(row.get("noise_vison"))
        plain = number(row.get("noise")) if plain is None else plain
        if plain is not None:
            noise.setdefault(key, []).append(plain)
        if number(row.get("offset")) is not None:
            level.setdefault(key, []).append(number(row["offset"]))
    dead = [key for key, values in noise.items() if max(values) < DEAD_NOISE_ADU]
    flags = []
    for ccd, quadrant in dead:
        levels = level.get((ccd, quadrant))
        at = f", level {sum(levels) / len(levels):.0f} ADU" if levels else ""
        cause = f"all pixels constant: noise at most {max(noise[ccd, quadrant]):.2g} ADU in every frame{at}"
        flags.append(Flag("DEADQUAD", cause, {"ccd": ccd, "quadrant": quadrant}))
    for ccd in CCDS:
        if all((ccd, quadrant) in dead for quadrant in QUADRANTS):
            flags.append(Flag("DEADCCD", "all four quadrants are dead", {"ccd": ccd}))
    return flags


def bad_products(case: Case, rules: FamilyRules | None) -> list[Flag]:
    """BADDATAPROD: a product that a finished sub-task should have made and did not, or mostly invalid."""
    flags = []
    for product in case.products:
        invalid = number(product.get("invalid_fraction"))
        if invalid is not None and invalid > INVALID_FRACTION:
            cause = (
                f"{product.get('file', product.get('kind'))}: {100 * invalid:.0f} % of the pixels are invalid"
            )
            flags.append(Flag("BADDATAPROD", cause, _scope(product)))
    made = {(p.get("kind"), p.get("ccd")) for p in case.products}
    for subtask, kind in rules.products if rules else ():
        for record in case.records:
            done = record.get("subtask") == subtask and record.get("status") == "done"
            if done and (kind, record.get("ccd")) not in made:
                cause = f"{subtask} made no {kind} product"
                flags.append(Flag("BADDATAPROD", cause, {**_scope(record), "subtask": subtask}))
    return flags


def _scope(thing) -> dict:
    return {"ccd": thing["ccd"]} if thing.get("ccd") is not None else {}
