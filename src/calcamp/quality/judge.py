"""The verdict of a test: tables and limits in, the whole of verdict.json out.

Nothing is measured here and no frame is read, so another limit re-judges in seconds. `judge` puts together
what the rooms of a test say: the structure of the data, house-keeping, compliance of measured values with
limits, the family's own rules, and what became of the sub-tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calcamp.quality import structure
from calcamp.quality.common import COMMON_CHECKS, REFERENCES, bad_products, dead_quadrants
from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, families, left_out
from calcamp.quality.flags import Flag, arrange, mask
from calcamp.quality.hk import judge_hk
from calcamp.quality.limits import read_hk_limits, read_limits
from calcamp.quality.subtasks import subtask_flags, subtask_states

SCHEMA = 1


def judge(
    judging: Mapping,
    manifest: Mapping,
    tables: Mapping[str, Sequence[Mapping]],
    records: Sequence[Mapping] = (),
    products: Sequence[Mapping] = (),
    *,
    limits: Mapping | None = None,
    hk_limits: Mapping | None = None,
) -> dict:
    """Judge a test.

    Parameters
    ----------
    judging
        What the plan says of the test (`calcamp.campaign.plan`): test, name, family, session, block,
        chamber, elvis, serials, offsets ({"1E": ADU} or {1: {"E": ADU}}), subtasks, options, excluded,
        limits, column_limits ({column: limits that differ there}), hk_limits, limits_name, limits_version, limits_checksum; optional: warm, gains, hk_calibration,
        detector, structure.
    manifest
        manifest.json.
    tables
        Subject -> rows (None for not measured), joined over CCDs; only the tables that are judged are asked for.
    records
        Records of the sub-tasks, one per sub-task and CCD.
    products
        Products made.
    limits, hk_limits
        Resolved limits, instead of those in `judging`.

    Returns
    -------
    dict
        verdict.json (design 4.2), and: family, title, flag_mask, messages, products, products_used, detector.
    """
    judging, manifest = dict(judging), dict(manifest)
    rules = families().get(judging.get("family", ""))
    case = Case(
        judging=judging,
        manifest=manifest,
        tables=tables,
        records=list(records),
        products=list(products),
        limits=read_limits(judging.get("limits") or {} if limits is None else limits),
        hk_limits=read_hk_limits(judging.get("hk_limits") or {} if hk_limits is None else hk_limits),
        column_limits=_column_limits(judging.get("column_limits") or {}),
        references={**REFERENCES, **(rules.references if rules else {})},
    )
    cells, flags = measured(case, rules)
    hk_cells, hk_flags = house_keeping(case)
    flags += hk_flags
    flags += structure.flags(manifest)
    flags += dead_quadrants(case)
    flags += subtask_flags(records, judging.get("subtasks") or ())
    flags += [Flag.from_dict(f) for record in records for f in record.get("flags") or ()]
    flags += bad_products(case, rules)
    if rules and rules.extra:
        flags += rules.extra(case, cells)
    cells += hk_cells
    if not any(cell.ok is not None for cell in cells):
        flags.append(Flag("UNKNOWN", _nothing(case)))
    if not case.exposures:
        # Nothing was taken: that there are no results says nothing about the device.
        flags = [flag for flag in flags if flag.kind != "result"]
    flags = arrange(flags)
    return _assemble(case, rules, cells, flags)


def measured(case: Case, rules: FamilyRules | None) -> tuple[list[Cell], list[Flag]]:
    """Common checks, those of the family, and limits that have none, as the limits file describes them."""
    checks = {check.name or check.limit: check for check in COMMON_CHECKS}
    checks.update({check.name or check.limit: check for check in (rules.checks if rules else ())})
    covered = {check.limit for check in checks.values()}
    held = {name: None for limits in (case.limits, *case.column_limits.values()) for name in limits}
    checks.update({name: Check(name) for name in held if name not in covered})
    cells, flags = [], []
    for check in checks.values():
        some, raised = check.run(case)
        cells += some
        flags += raised
    return cells, flags


def _column_limits(resolved: Mapping) -> dict[int, dict]:
    """Limits of single columns where they differ from the test's; None is not judged there."""
    out = {}
    for column, limits in resolved.items():
        given = read_limits({name: item for name, item in limits.items() if item is not None})
        out[int(column)] = {name: given.get(name) for name in limits}
    return out


def house_keeping(case: Case) -> tuple[list[Cell], list[Flag]]:
    """The three passes over the exposures of the test."""
    if not case.hk_limits or not (case.exposures or case.tables.get("hk")):
        return [], []
    return judge_hk(
        case.tables.get("hk", []),
        case.hk_limits,
        logged=case.logged,
        obsids=[e["obsid"] for e in case.exposures],
        calibration=case.judging.get("hk_calibration"),
    )


def decide(
    flags: Sequence[Flag], cells: Sequence[Cell], status: str, words: tuple[str, str] = ("pass", "fail")
) -> str | None:
    """``pass`` or ``fail`` (``go``, ``no_go``), None when it cannot be told.

    What is measured and out of limits fails. Data or results that are missing leave it open.
    """
    if any(flag.effect == "fail" for flag in flags):
        return words[1]
    if status != "complete" or any(flag.effect == "open" for flag in flags):
        return None
    return words[0] if any(cell.ok for cell in cells) else None


# ---- putting it together -------------------------------------------------------------------------
def _assemble(case: Case, rules, cells, flags) -> dict:
    from calcamp import __version__

    judging, manifest = case.judging, case.manifest
    name = judging.get("name") or judging.get("test")
    states = subtask_states(case.records, judging.get("subtasks") or ())
    status = _status(manifest, states)
    obsids = [e["obsid"] for e in case.exposures]
    excluded = _excluded(case)
    first, last = _dates(case)
    words = ("go", "no_go") if judging.get("family") == "warm" else ("pass", "fail")
    return {
        "schema": SCHEMA,
        "calcamp_version": __version__,
        "block": judging.get("block"),
        "session": judging.get("session"),
        "test": name,
        "family": judging.get("family"),
        "title": judging.get("title"),
        "purpose": judging.get("purpose"),
        "chamber": judging.get("chamber"),
        "elvis": judging.get("elvis"),
        "serials": judging.get("serials") or {},
        "filled_in_by": judging.get("filled_in_by"),
        "script": _logged(case, "calscrpt"),
        "obsids": [min(obsids), max(obsids)] if obsids else [],
        "day_folders": list(
            dict.fromkeys(str(e["day_folder"]) for e in case.exposures if e.get("day_folder"))
        ),
        "frames": _frames(case),
        "started": first,
        "ended": last,
        "options": judging.get("options") or {},
        "report": f"{name}_report.pdf",
        "status": status,
        "verdict": decide(flags, cells, status, words),
        "subtasks": states,
        "flags": [flag.as_dict() for flag in flags],
        "flag_mask": mask(flags),
        "compliance": [cell.as_dict() for cell in cells],
        "headline": rules.headline(case) if rules and rules.headline else [],
        "excluded": excluded,
        "limits": {
            "name": judging.get("limits_name"),
            "version": judging.get("limits_version"),
            "checksum": judging.get("limits_checksum"),
        },
        "messages": list(manifest.get("messages") or []) + list(manifest.get("problems") or []),
        "products": case.products,
        "products_used": _products_used(case),
        "inputs": _inputs(case),
        "detector": case.detector or None,
    }


def _status(manifest: Mapping, states: Mapping) -> str:
    if any(state["status"] in ("crashed", "missing") for state in states.values()):
        return "failed"
    return "complete" if manifest.get("status") == "complete" else "incomplete"


def _frames(case: Case) -> dict:
    whole = [m for m in case.manifest.get("missing") or [] if "ccds" not in m]
    declared = case.manifest.get("declared")
    if declared is None:
        declared = len(case.exposures) + len(whole)
    selection = case.tables.get("selection")
    used = {e["obsid"] for e in case.exposures if e.get("files") is None or any(e["files"].values())}
    if selection:
        used &= {row["obsid"] for row in selection if row.get("use")}
    used -= {
        item["obsid"] for item in case.by_analyst if item.get("ccd") is None and item.get("quadrant") is None
    }
    return {"declared": declared, "found": len(case.exposures), "used": len(used)}


def _excluded(case: Case) -> list[dict]:
    out: dict[tuple, dict] = {}
    items = [(item, "analyst") for item in case.by_analyst]
    items += [
        (item, item.get("by", "rule")) for record in case.records for item in record.get("excluded") or ()
    ]
    items += [(row, "rule") for row in case.by_rule]
    analyst = case.by_analyst
    for item, by in items:
        if by != "analyst" and left_out(item, analyst):
            continue
        key = (item["obsid"], item.get("ccd"), item.get("quadrant"))
        entry = {
            "obsid": key[0],
            "ccd": key[1],
            "quadrant": key[2],
            "cause": item.get("cause") or "left out",
            "by": by,
        }
        out.setdefault(key, entry)
    return sorted(out.values(), key=lambda e: (e["obsid"], e["ccd"] or 0, e["quadrant"] or ""))


def _logged(case: Case, key: str):
    return next((row[key] for row in case.logged.values() if row.get(key) not in (None, "")), None)


def _dates(case: Case) -> tuple[str | None, str | None]:
    """Date of the first and of the last exposure, ISO, by the clock of the acquisition computer."""
    from calcamp.data.names import parse_stamp

    found = []
    for row in case.logged.values():
        date = row.get("date")
        try:
            stamp = parse_stamp(date) if isinstance(date, str) else date
            found.append(stamp.isoformat(timespec="seconds"))
        except (ValueError, AttributeError):
            continue
    return (min(found), max(found)) if found else (None, None)


def _inputs(case: Case) -> dict[str, str | None]:
    files = {
        item["name"]: item.get("sha256")
        for e in case.exposures
        for item in (e.get("files") or {}).values()
        if item
    }
    for record in case.records:
        files.update(record.get("inputs") or {})
    return files


def _products_used(case: Case) -> dict:
    used: dict[str, dict] = {}
    for record in case.records:
        for kind, product in ((record.get("job") or {}).get("products") or {}).items():
            where = f"CCD{record['ccd']}" if record.get("ccd") else "block"
            used.setdefault(kind, {})[where] = product.get("path") or product.get("numbers")
    gain = (case.judging.get("gain_product") or {}).get("path") or case.judging.get("gains")
    if gain and "gain" not in used:
        used["gain"] = {"verdict": gain}  # of the numbers in electrons
    return used


def _nothing(case: Case) -> str:
    if not case.exposures:
        return f"no exposure of the test: {case.manifest.get('reason') or 'nothing in the EXP-LOG'}"
    return "nothing could be measured or compared with a limit"
