"""Sections that every report has: front page, inventory, structure, house-keeping, compliance, checks, inputs."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    BAD_STATES,
    CCDS,
    LONG_TABLE,
    NOT_MEASURED,
    QUADRANTS,
    REGION_NAMES,
    Beam,
    Cell,
    Facts,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    Verbatim,
    as_dict,
    as_list,
    bound,
    is_number,
    label,
    limit_sign,
    named_key,
    number,
    obsid_tuple,
    plain_table,
    power_of_ten,
    pretty_unit,
    scope_text,
    state_of,
    title,
    with_error,
    worst,
)

_VALUE_KEYS = {
    "check",
    "ok",
    "value",
    "err",
    "low",
    "high",
    "obsids",
    "n",
    "unit",
    "min",
    "max",
    "mean",
    "worst",
}
_VALUE_KEYS |= {
    "n_unmeasured",
    "limit",
    "reason",
    "quantity",
    "violations",
    "n_violating",
    "flag",
    "flags",
    "limits",
    "source",
}


# ---- page one -----------------------------------------------------------------------------------------
_WORDS = {
    "pass": ("PASS", "pass"),
    "fail": ("FAIL", "fail"),
    "go": ("GO", "pass"),
    "no_go": ("NO GO", "fail"),
}


def front(data: ReportData) -> dict:
    """Everything on page one, as plain values and blocks for the template."""
    verdict = data.verdict
    word, state = _WORDS.get(str(verdict.get("verdict")).lower(), ("NO VERDICT", "none"))
    note = {"pass": "all checks within limits", "fail": "see flags and red cells", "none": "not judged"}[
        state
    ]
    frames = as_dict(verdict.get("frames"))
    sentence = (
        f"Block {verdict.get('block', '–')}, session {verdict.get('session', '–')}, OBSIDs {obsid_range(data)}; "
        f"frames: {number(frames.get('declared'))} declared, {number(frames.get('found'))} found, "
        f"{number(frames.get('used'))} used."
    )
    flags = data.flags[:6]
    return {
        "test": data.test,
        "word": word,
        "state": state,
        "word_note": note,
        "subject": verdict.get("title") or getattr(data.definition, "title", "") or "Calibration test",
        "sentence": sentence,
        "notes": _front_notes(data),
        "facts": _front_facts(data),
        "flags": [_flag_row(flag) for flag in flags],
        "more_flags": len(data.flags) - len(flags),
        "lights": traffic_lights(data),
        "headlines": [*headline_blocks(data, most=PAGE_ONE), *checks_summary(data)],
    }


def obsid_range(data: ReportData) -> str:
    ends = as_list(data.verdict.get("obsids")) or data.obsids
    return f"{ends[0]}–{ends[-1]}" if ends else NOT_MEASURED


def _front_notes(data: ReportData) -> list[Note]:
    notes = [Note(f"This report is not complete: {problem}.", "bad") for problem in data.problems]
    status = data.verdict.get("status")
    if status and status != "complete":
        notes.append(Note(f"Status of the test: {status}. {data.manifest.get('reason') or ''}", "bad"))
    for name, entry in as_dict(data.verdict.get("subtasks")).items():
        entry = as_dict(entry)
        if entry.get("status") in BAD_STATES:
            notes.append(
                Note(
                    f"Sub-task {name} {entry['status']}. {entry.get('reason') or entry.get('error') or ''}",
                    "bad",
                )
            )
    return notes


def _front_facts(data: ReportData) -> list[list[tuple[str, str]]]:
    verdict = data.verdict
    serials = as_dict(verdict.get("serials"))
    left = [
        ("Test", data.test),
        ("Block", _text(verdict.get("block"))),
        ("Serials", ", ".join(f"{k.upper()} {v}" for k, v in serials.items()) or NOT_MEASURED),
        ("Chamber", _text(verdict.get("chamber"))),
        ("ELVIS", _text(verdict.get("elvis"))),
    ]
    right = [
        ("Session", _text(verdict.get("session"))),
        ("OBSIDs", obsid_range(data)),
        ("Day-folders", ", ".join(map(folder_name, as_list(verdict.get("day_folders")))) or NOT_MEASURED),
        ("Script", _text(verdict.get("script")).removesuffix(".xlsx")),
        (
            "Status, run",
            f"{_text(verdict.get('status'))}; {_stamp(verdict.get('started'))} to {_stamp(verdict.get('ended'))}",
        ),
    ]
    return [left, right]


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    return NOT_MEASURED if value in (None, "", []) else str(value)


def folder_name(path) -> str:
    """Last part of a folder's path: where it lay on the machine is no part of a report."""
    return _text(path).rstrip("/").rsplit("/", 1)[-1]


def _stamp(value) -> str:
    return str(value)[:19].replace("T", " ") if value else NOT_MEASURED


def _flag_row(flag: dict) -> dict:
    return {
        "name": str(flag.get("name", "?")),
        "cause": _text(flag.get("cause")),
        "scope": scope_text(flag.get("scope")),
    }


def traffic_lights(data: ReportData) -> Beam:
    """State of every CCD and quadrant from all compliance cells; red ones name the failing checks."""
    states, failing, counts = defaultdict(list), defaultdict(list), defaultdict(int)
    for cell in data.compliance:
        if cell.get("ccd") is None or is_hk(cell):
            continue
        quadrants = (cell["quadrant"],) if cell.get("quadrant") in QUADRANTS else QUADRANTS
        for quadrant in quadrants:
            key = (cell["ccd"], quadrant)
            state = state_of(cell.get("ok"))
            states[key].append(state)
            counts[key] += state != "none"
            if state == "fail":
                failing[key].append(short_check(cell))
    cells = {}
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            key = (ccd, quadrant)
            state = worst(states[key])
            names = list(dict.fromkeys(failing[key]))
            total = len(states[key])
            passed = f"{counts[key]} checks" if counts[key] == total else f"{counts[key]} of {total} checks"
            text = {"pass": passed, "none": "not measured"}.get(state, "")
            if names:
                text = ", ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")
            cells[key] = Cell(text, state)
    return Beam(
        cells,
        "Verdict by CCD and quadrant, as the beam sees the block (all checks of images; house-keeping see below)",
    )


def is_hk(cell: dict) -> bool:
    return str(cell.get("check", "")).lower().startswith("hk")


def checks_summary(data: ReportData) -> list:
    """One line per check that did not pass whole: cells within, outside, not measured; names of the others."""
    groups: dict[str, list[str]] = defaultdict(list)
    for cell in data.compliance:
        groups[str(cell.get("check", "?"))].append(state_of(cell.get("ok")))
    if not groups:
        return []
    passed = [title(check) for check, states in groups.items() if set(states) == {"pass"}]
    rows = []
    for check, states in groups.items():
        if title(check) in passed or len(rows) == 8:
            continue
        state = worst(states)
        counts = {name: states.count(name) for name in ("pass", "fail", "none")}
        rows.append(
            [
                Cell(title(check)),
                Cell({"pass": "pass", "fail": "FAIL", "none": "not measured"}[state], state, align="l"),
                Cell(str(counts["pass"])),
                Cell(str(counts["fail"]), "fail" if counts["fail"] else ""),
                Cell(str(counts["none"]), "none" if counts["none"] else ""),
            ]
        )
    blocks: list = []
    if rows:
        header = ["Check", "Verdict", "Cells within limits", "Outside", "Not measured"]
        more = len(groups) - len(passed) - len(rows)
        blocks.append(TableBlock(header, rows, "Checks", more, "the compliance section", True))
    if passed:
        blocks.append(Text(f"Passed in all cells: {', '.join(passed[:20])}."))
    return blocks


def short_check(cell: dict) -> str:
    name = title(str(cell.get("check", "?")).replace("compliance_", ""))
    region = cell.get("region")
    return f"{name} ({region})" if region else name


# ---- headline numbers -----------------------------------------------------------------------------------
#: Headline quantities on page one; the rest has its own section.
PAGE_ONE = 3


def headline_blocks(data: ReportData, most: int | None = None, start: int = 0) -> list:
    """Headline numbers, a beam table per quantity, coloured by the compliance check of the same name."""
    groups: dict[tuple, dict] = {}
    loose = []
    for item in data.headline:
        if item.get("ccd") in CCDS and item.get("quadrant") in QUADRANTS:
            extra = tuple(
                (k, v) for k, v in sorted(item.items()) if k not in _HEADLINE_KEYS and v is not None
            )
            groups.setdefault((str(item.get("quantity")), extra), {})[item["ccd"], item["quadrant"]] = item
        else:
            loose.append(item)
    blocks = [
        _headline_beam(data, name, extra, items)
        for (name, extra), items in sorted(groups.items(), key=lambda g: _rank(*g[0]))
    ]
    if loose:
        blocks.append(_headline_table(loose))
    return blocks[start:] if most is None else blocks[start : start + most]


_HEADLINE_KEYS = {
    "quantity",
    "ccd",
    "quadrant",
    "value",
    "err",
    "unit",
    "n",
    "is_limit",
    "low",
    "high",
    "ok",
    "reason",
    "flag",
}
_HEADLINE_KEYS |= {"sys", "systematic", "gain_nominal", "fluence"}
#: Quantities that belong on page one, most wanted first; of regions the image area comes first.
_FIRST = (
    "dark_current",
    "gain",
    "full_well",
    "read_noise",
    "offset",
    "hot_pixels",
    "fixed_pattern",
    "read_noise_e",
    "dsnu",
)


def _rank(name: str, extra: tuple) -> tuple:
    region = dict(extra).get("region")
    return (region not in (None, "img"), _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _headline_beam(data: ReportData, name: str, extra: tuple, items: dict) -> Beam:
    cells, bounds = {}, set()
    # small numbers whose zeros do not fit a cell are shown as so many thousandths or millionths of the unit
    longest = max(len(with_error(i.get("value"), i.get("err"), limit_sign(i))) for i in items.values())
    largest = max((abs(i["value"]) for i in items.values() if is_number(i.get("value"))), default=1.0)
    power = 3 * math.ceil(-math.log10(largest) / 3) if longest > 17 and 0 < largest < 0.01 else 0

    def scaled(value):
        return value * 10**power if is_number(value) else value

    for key, item in items.items():
        judged = _judged(data, item)
        low, high = scaled(judged.get("low")), scaled(judged.get("high"))
        if is_number(low) or is_number(high):
            bounds.add((low, high))
        state = state_of(judged["ok"]) if "ok" in judged else ""
        if not is_number(item.get("value")):
            state = "none"
        text = with_error(scaled(item.get("value")), scaled(item.get("err")), limit_sign(item))
        if is_number(item.get("systematic")) and item["systematic"] > 0:
            text += f" ± {number(scaled(item['systematic']), 2)} (syst.)"
        cells[key] = Cell(text, state)
        if is_number(item.get("fluence")):  # small, in two lines beside the number
            cells[key].high, cells[key].low = f"at {item['fluence'] / 1000:.2g}", "kADU"
    unit = next((pretty_unit(i["unit"]) for i in items.values() if i.get("unit")), "")
    unit = f"{power_of_ten(-power)} {unit}".strip() if power else unit
    caption = title(name) + "".join(f", {named_key(k, v)}" for k, v in extra)
    caption += f" [{unit}]" if unit else ""
    if any(i.get("gain_nominal") for i in items.values()):
        caption += ", with the nominal gain"
    if len(bounds) == 1:
        caption += f", limits {_bounds(*bounds.pop())}"
    elif bounds:
        caption += ", limits per quadrant in the compliance table"
    return Beam(cells, caption)


def _bounds(low, high) -> str:
    return f"{bound(low) or '−∞'} to {bound(high) or '∞'}"


def _judged(data: ReportData, item: dict) -> dict:
    """The compliance cell that judges a headline number: its own limits, or those of the same check and keys."""
    if is_number(item.get("low")) or is_number(item.get("high")):
        return item
    name = item.get("quantity")
    found = {}
    for cell in data.compliance:
        check = str(cell.get("check"))
        if name not in (check, cell.get("quantity")) and check != f"{name}_result":
            continue
        if all(cell.get(k) in (None, item[k]) for k in _CELL_KEYS if item.get(k) is not None):
            found.setdefault("result" if check.endswith("_result") else "check", cell)
    return found.get("result") or found.get("check") or {}


_CELL_KEYS = ("ccd", "quadrant", "region", "column", "wavelength", "spot", "kind")


def _headline_table(items: list[dict]) -> TableBlock:
    rows = []
    for item in items[:LONG_TABLE]:
        keys = ", ".join(
            named_key(k, v) for k, v in item.items() if k not in _HEADLINE_KEYS and v is not None
        )
        where = ", ".join(p for p in (label(item.get("ccd"), item.get("quadrant")), keys) if p)
        text = with_error(item.get("value"), item.get("err"), limit_sign(item))
        state = "" if is_number(item.get("value")) else "none"
        rows.append(
            [
                Cell(title(item.get("quantity", "?"))),
                Cell(where, align="l"),
                Cell(text, state),
                Cell(pretty_unit(item.get("unit") or ""), align="l"),
                Cell(number(item.get("n"))),
            ]
        )
    return TableBlock(
        ["Quantity", "Where", "Value", "Unit", "n"], rows, "Other headline numbers", len(items) - len(rows)
    )


# ---- front matter -----------------------------------------------------------------------------------------
DOCUMENTS = (("EUCL-MSS", "Euclid VIS ground calibration campaign: test descriptions", "applicable"),)


def front_matter(
    data: ReportData, people: list[dict], documents: list[dict], versions: list[dict], issue: dict
) -> Section:
    """Purpose, scope, documents, people, versions, document tracking."""
    purpose = data.verdict.get("purpose") or getattr(data.definition, "purpose", "")
    purpose = purpose or f"Results of the test {data.test}."
    scope = (
        f"One run of {data.test} on block {data.verdict.get('block', '–')}, OBSIDs {obsid_range(data)}. Judged are the "
        "images of this run and what was measured on them; every number carries its error, and what could not be "
        "measured is grey, never zero."
    )
    sub = [
        Section("Purpose and scope", [Text(purpose), Text(scope)], "purpose"),
        Section("Applicable and reference documents", [_documents(documents)], "documents"),
        Section("People", [_people(people)], "people"),
        Section("Versions", [_versions(data, versions)], "versions"),
        Section("Document tracking", [_tracking(issue)], "tracking"),
    ]
    return Section("About this document", [], "about", sub)


def _documents(documents: list[dict]):
    if not documents:
        return Text("No applicable or reference document is named in the configuration.")
    rows = [
        [
            Cell(_text(d.get("reference"))),
            Cell(_text(d.get("title")), align="l"),
            Cell(_text(d.get("issue")), align="l"),
        ]
        for d in documents
    ]
    return TableBlock(["Reference", "Title", "Issue"], rows)


def _people(people: list[dict]):
    known = {str(p.get("role", "")).lower(): p for p in people}
    rows = []
    for role in dict.fromkeys(["author", "contributor", "approval", "authorisation", *known]):
        person = known.get(role, {})
        rows.append(
            [
                Cell(title(role)),
                Cell(person.get("name") or "", align="l"),
                Cell(person.get("position") or "", align="l"),
                Cell(""),
                Cell(""),
            ]
        )
    return TableBlock(["Role", "Name", "Position", "Date", "Signature"], rows)


def _versions(data: ReportData, versions: list[dict]) -> Facts:
    pairs = [("calcamp, measured and judged", _text(data.verdict.get("calcamp_version")))]
    pairs += [(str(v["name"]), str(v["version"])) for v in versions]
    pairs += [
        ("Verdict schema", _text(data.verdict.get("schema"))),
        ("Manifest schema", _text(data.manifest.get("schema"))),
    ]
    return Facts(pairs)


def _tracking(issue: dict) -> TableBlock:
    row = [
        Cell(_text(issue.get(k)), align="l" if k != "issue" else "")
        for k in ("issue", "date", "pages", "change", "comment")
    ]
    return TableBlock(["Issue", "Date", "Pages", "Change", "Comment"], [row])


# ---- flags ------------------------------------------------------------------------------------------------
def flags(data: ReportData) -> Section:
    """Every flag with cause and scope, and the state of the sub-tasks."""
    section = Section("Flags and sub-tasks", [], "flags")
    if data.flags:
        rows = []
        for flag in data.flags[: 4 * LONG_TABLE]:
            row = _flag_row(flag)
            rows.append(
                [Cell(row["name"], "fail"), Cell(row["cause"], align="l"), Cell(row["scope"], align="l")]
            )
        section.blocks.append(
            TableBlock(["Flag", "Cause", "Where"], rows, "", len(data.flags) - len(rows), "verdict.json")
        )
    else:
        section.blocks.append(Text("No flag was raised."))
    subtasks = as_dict(data.verdict.get("subtasks"))
    if subtasks:
        rows = []
        for name, entry in subtasks.items():
            entry = as_dict(entry)
            bad = entry.get("status") in BAD_STATES
            minutes = entry.get("minutes")
            rows.append(
                [
                    Cell(str(name)),
                    Cell(_text(entry.get("status")), "fail" if bad else "", align="l"),
                    Cell(f"{minutes:.2f}" if is_number(minutes) else NOT_MEASURED),
                    Cell(_text(entry.get("reason") or entry.get("error")) if bad else "", align="l"),
                ]
            )
        section.blocks.append(TableBlock(["Sub-task", "Status", "Minutes", "Remark"], rows, "Sub-tasks"))
        for name, entry in subtasks.items():
            trace = as_dict(entry).get("traceback")
            if trace:
                lines = trace if isinstance(trace, list) else str(trace).splitlines()
                section.blocks.append(Verbatim("\n".join(map(str, lines[-15:])), f"Last lines of {name}"))
    return section


# ---- data -------------------------------------------------------------------------------------------------
_INVENTORY = ("exptime", "rdmode", "chinj", "v_tpump", "s_tpump", "source", "wave")


def inventory(data: ReportData) -> Section:
    """What was taken: one row per exposure (long tests: per run of exposures alike), the target of OBSID links."""
    section = Section("Data inventory", [], "inventory")
    if not data.exposures:
        section.blocks.append(Note("The manifest lists no exposures.", "missing"))
        return section
    used = _unused(data)
    first = data.exposures[0]
    logged = [key for key in _INVENTORY if _logged(first, key) is not None]
    logged.append("day_folder")
    values = {key: {_inventory_text(e, key) for e in data.exposures} for key in logged}
    extra = [key for key in logged if len(values[key]) > 1]
    same = [f"{key.replace('_', '-')} {next(iter(values[key]))}" for key in logged if len(values[key]) == 1]
    if same:
        section.blocks.append(Text(f"The same for all {len(data.exposures)} exposures: {', '.join(same)}."))
    rows = []
    for run in _alike(data.exposures, extra, used):
        first, last = run[0], run[-1]
        files = sum(map(bool, as_dict(first.get("files")).values()))
        numbers = [str(exposure.get("obsid")) for exposure in run]
        column, use = first.get("column"), used.get(first.get("obsid"), "used")
        rows.append(
            [
                Cell(_span(numbers[0], numbers[-1]), anchors=tuple(f"obs-{n}" for n in numbers)),
                Cell(f"col{column:03d}" if isinstance(column, int) else _text(column)),
                Cell(_span(_text(first.get("frame")), _text(last.get("frame")))),
                *[Cell(_inventory_text(first, key)) for key in extra],
                Cell(str(files), "" if files == 3 else "none"),
                Cell("yes" if first.get("hk") else "no", "" if first.get("hk") else "none"),
                Cell(use, "" if use == "used" else "none", align="l"),
            ]
        )
    header = ["OBSID", "Column", "Frame", *extra, "Files", "HK", "Use"]
    section.blocks.append(TableBlock(header, rows, "", compact=True))
    return section


def _alike(exposures: list[dict], keys: list[str], used: dict[int, str]) -> list[list[dict]]:
    """Exposures in rows of the inventory; in a long test those that follow each other and differ in nothing share one."""
    runs, before = [], None
    for exposure in exposures:
        obsid, frame = exposure.get("obsid"), exposure.get("frame")
        facts = (
            exposure.get("column"),
            [_inventory_text(exposure, key) for key in keys],
            sum(map(bool, as_dict(exposure.get("files")).values())),
            bool(exposure.get("hk")),
            used.get(obsid),
        )
        counted = isinstance(obsid, int) and isinstance(frame, int)
        if len(exposures) > LONG_TABLE and counted and before == (obsid - 1, frame - 1, facts):
            runs[-1].append(exposure)
        else:
            runs.append([exposure])
        before = (obsid, frame, facts)
    return runs


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first}–{last}"


def _inventory_text(exposure: dict, key: str) -> str:
    return folder_name(exposure.get(key)) if key == "day_folder" else number(_logged(exposure, key))


def _logged(exposure: dict, key: str):
    for source in (exposure, as_dict(exposure.get("values")), as_dict(exposure.get("log_row"))):
        if source.get(key) is not None:
            return source[key]
    return None


def _unused(data: ReportData) -> dict[int, str]:
    """OBSIDs left out whole or in part, with where."""
    out = defaultdict(list)
    for item in as_list(data.verdict.get("excluded")):
        item = as_dict(item)
        out[item.get("obsid")].append(label(item.get("ccd"), item.get("quadrant")) or "all")
    return {obsid: "left out: " + ", ".join(dict.fromkeys(where)) for obsid, where in out.items()}


def structure(data: ReportData) -> Section:
    """Expected against found: missing, unexpected, mismatching."""
    section = Section("Structure check", [], "structure")
    manifest = data.manifest
    remarks = [str(m) for m in [*as_list(manifest.get("messages")), *as_list(manifest.get("problems"))]]
    if remarks:
        section.blocks.append(Verbatim("\n".join(remarks[:40]), "Remarks of the data gate and the EXP-LOG"))
    status = manifest.get("status")
    found = {name: as_list(manifest.get(name)) for name in ("missing", "unexpected", "mismatches")}
    if not any(found.values()) and status == "complete":
        section.blocks.append(
            Text("The acquisition is consistent with the script: all frames were found, all keys match.")
        )
        return section
    reason = f" {manifest['reason']}" if manifest.get("reason") else ""
    section.blocks.append(
        Note(
            f"Status of the acquisition: {_text(status)}.{reason}", "info" if status == "complete" else "bad"
        )
    )
    for name, caption in (("missing", "Missing frames"), ("unexpected", "Unexpected exposures")):
        if found[name]:
            section.blocks.append(_free_table(found[name], caption))
        else:
            section.blocks.append(Text(f"{caption}: none."))
    if found["mismatches"]:
        rows = [
            [
                Cell(_text(as_dict(m).get("obsid")), obsids=()),
                Cell(_text(as_dict(m).get("key")), align="l"),
                Cell(_text(as_dict(m).get("expected")), align="l"),
                Cell(_text(as_dict(m).get("found")), "fail", align="l"),
            ]
            for m in found["mismatches"][:LONG_TABLE]
        ]
        more = len(found["mismatches"]) - len(rows)
        section.blocks.append(
            TableBlock(["OBSID", "Key", "Expected", "Found"], rows, "Mismatches", more, "manifest.json")
        )
    else:
        section.blocks.append(Text("Mismatches: none."))
    return section


def _free_table(items: list, caption: str) -> TableBlock:
    """A table of dictionaries of unknown keys, or of plain values."""
    dictionaries = [item if isinstance(item, dict) else {"item": item} for item in items]
    keys = list(dict.fromkeys(key for item in dictionaries for key in item))
    rows = [[Cell(_text(item.get(key)), align="l") for key in keys] for item in dictionaries[:LONG_TABLE]]
    return TableBlock(
        [title(key) for key in keys], rows, caption, len(items) - len(rows), "manifest.json", True
    )


# ---- house-keeping -----------------------------------------------------------------------------------------
HK_PASSES = (
    ("hk_command", "Performance, against the commanded value"),
    ("hk_performance", "Performance, absolute"),
    ("hk_safe", "Safe, absolute"),
)


def _hk_pass(check: str) -> int:
    """Which of the three passes a check name belongs to."""
    name = check.lower()
    if "safe" in name:
        return 2
    return 0 if "command" in name or "relative" in name else 1


def house_keeping(data: ReportData) -> Section:
    """Three passes with the keys out of limits, and plots of every key against time."""
    section = Section("House-keeping", [], "hk")
    cells = data.checks("hk", "HK")
    section.blocks.append(_hk_passes(cells))
    offenders = [c for c in cells if c.get("ok") is False]
    if offenders:
        section.blocks.append(_hk_offenders(offenders))
    table = data.table("hk")
    if table is None:
        section.blocks.append(Note(data.why_no_table("hk"), "missing"))
    elif not table.has("key", "obsid", "mean"):
        section.blocks.append(Note("Table hk lacks the columns obsid, key and mean.", "missing"))
    else:
        section.blocks += _hk_figures(data, table, cells)
    return section


def _hk_passes(cells: list[dict]) -> TableBlock:
    rows = []
    for index, (_, name) in enumerate(HK_PASSES):
        group = [c for c in cells if _hk_pass(str(c.get("check"))) == index]
        by_state = {
            s: sorted({str(c.get("key", "?")) for c in group if state_of(c.get("ok")) == s})
            for s in ("pass", "fail", "none")
        }
        bad, blank = by_state["fail"], [k for k in by_state["none"] if k not in by_state["fail"]]
        passed = [k for k in by_state["pass"] if k not in bad]
        if not group:
            verdict, state = "not checked", "none"
        elif bad:
            verdict, state = ", ".join(bad), "fail"
        else:
            verdict, state = ("ALL PASSED", "pass") if not blank else ("no key out of limits", "pass")
        rows.append(
            [
                Cell(name),
                Cell(str(len(passed))),
                Cell(verdict, state, align="l"),
                Cell(", ".join(blank), align="l"),
            ]
        )
    return TableBlock(["Pass", "Keys in limits", "Keys out of limits", "Not measured"], rows)


def _hk_offenders(cells: list[dict]) -> TableBlock:
    rows = []
    for cell in cells[:LONG_TABLE]:
        rows.append(
            [
                Cell(str(cell.get("key", "?"))),
                Cell(HK_PASSES[_hk_pass(str(cell.get("check")))][1], align="l"),
                Cell(number(cell.get("value")), "fail", bound(cell.get("low")), bound(cell.get("high"))),
                Cell("", obsids=obsid_tuple(cell.get("obsids")), align="l"),
            ]
        )
    return TableBlock(
        ["Key", "Pass", "Worst value", "OBSIDs"],
        rows,
        "Keys out of limits",
        len(cells) - len(rows),
        "verdict.json",
    )


def _hk_figures(data: ReportData, table, cells: list[dict]) -> list:
    times, xlabel = fig.frame_times(data)
    keys = table.distinct("key")
    bounds = {}
    for cell in cells:  # the tightest absolute limits known for the key: performance before safe
        name = str(cell.get("key"))
        rank = _hk_pass(str(cell.get("check")))
        if rank != 0 and (name not in bounds or rank < bounds[name][0]):
            bounds[name] = (rank, cell.get("low"), cell.get("high"))
    groups = _hk_groups(keys)
    per_figure = 21
    blocks = []
    for start in range(0, len(groups), per_figure):
        part = groups[start : start + per_figure]
        rows = -(-len(part) // 3)

        def draw(figure, part=part, rows=rows):
            _draw_hk(figure, part, rows, table, times, xlabel, bounds)

        caption = (
            f"House-keeping against {xlabel}, {part[0][0]} to {part[-1][0]}: mean over each exposure with its minimum and "
            "maximum (bar), commanded value (grey line), limits (red, dashed, where they lie near the values). Of keys that "
            "are there for the top (_T, blue) and the bottom (_B, orange) of a CCD or board both are in one panel."
        )
        blocks.append(
            data.figures.make(f"hk_{start // per_figure + 1}", caption, draw, height=0.45 + 1.12 * rows)
        )
    return blocks


def _hk_groups(keys: list[str]) -> list[tuple[str, list[str]]]:
    """(title, keys) of the panels: top and bottom of the same thing together."""
    groups: dict[str, list[str]] = {}
    for key in map(str, keys):
        # a key of the name without an ending is another thing
        groups.setdefault(f"{key[:-2]}_" if key.endswith(("_T", "_B")) else key, []).append(key)
    return [
        (found[0] if len(found) == 1 else found[0][:-2], sorted(found)[::-1]) for found in groups.values()
    ]


def _draw_hk(figure, groups, rows, table, times, xlabel, bounds) -> None:
    height = 0.45 + 1.12 * rows
    # side by side, so that no bar hides the other
    series = (
        (-0.006, fig.COLOURS["blue"], fig.COLOURS["sky"], "o"),
        (0.006, fig.COLOURS["orange"], "#F3CF80", "s"),
    )
    for k, (name, keys) in enumerate(groups):
        row, column = divmod(k, 3)
        bottom = 1 - (0.18 + (row + 1) * 1.12 - 0.12) / height
        rect = (0.065 + column * 0.325, bottom, 0.265, 0.82 / height)
        ax = fig.panel(figure, rect, x=k + 3 >= len(groups), y=True)
        values, limits = [], set()
        for key, (shift, colour, pale, marker) in zip(keys, series, strict=False):
            part = table.select(key=key)
            x = fig.abscissa(part["obsid"], times)
            if len(keys) > 1 and len(x):
                x = x + shift * max(np.ptp(x), 1e-9)
            mean, low, high = part.floats("mean"), part.floats("min"), part.floats("max")
            fig.bars(ax, x, low, high, pale, 1.4)
            fig.points(ax, x, mean, colour=colour, marker=marker)
            commanded = part.floats("commanded")
            if np.isfinite(commanded).any():
                ax.plot(x, commanded, color="#888888", linewidth=0.8, zorder=0)
            values += [mean, low, high, commanded]
            limits |= {value for value in bounds.get(key, ())[1:] if is_number(value)}
        values = np.concatenate(values)
        _hk_limits(ax, values, limits)
        fig.panel_title(ax, name, fontsize=6.5, parse_math=False)
        if not np.isfinite(values).any():
            ax.text(
                0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color="#888888"
            )
    fig.axis_labels(figure, xlabel)


def _hk_limits(ax, values, limits) -> None:
    """Room around the values, and the limits when they are not far away."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = values.min(), values.max()
    spread = max(high - low, 0.002 * max(abs(low), abs(high)), 1e-3)
    low, high = low - 0.6 * spread, high + 0.6 * spread
    for value in sorted(limits):
        if low - 4 * spread <= value <= high + 4 * spread:
            low, high = min(low, value - 0.3 * spread), max(high, value + 0.3 * spread)
        ax.axhline(value, **fig.LIMIT)
    ax.set_ylim(low, high)


# ---- saturated and lost pixels --------------------------------------------------------------------------------
def saturation(data: ReportData) -> Section:
    """Compliance of saturation and lost pixels, and the exposures that have lost pixels."""
    section = Section("Saturated and lost pixels", [], "saturation")
    section.blocks += compliance_blocks([c for c in data.compliance if _is_pixel_check(c)])
    table = data.table("frames")
    if table is None:
        section.blocks.append(Note(data.why_no_table("frames"), "missing"))
        return section
    lost, saturated = table.floats("lost"), table.floats("saturated")
    total_lost, total_saturated = np.nansum(lost), np.nansum(saturated)
    section.blocks.append(
        Text(
            f"Over all frames, CCDs and quadrants: {total_lost:.0f} pixels lost (0 ADU), {total_saturated:.0f} pixels railed (65535 ADU)."
        )
    )
    bad = table.where(lost > 0)
    if len(bad):
        section.blocks.append(
            plain_table(bad, ["obsid", "ccd", "quadrant", "lost", "saturated"], "Frames with lost pixels")
        )
    if total_saturated:
        section.blocks.append(_railed(table))
    stuck = (
        [r for r in table.rows() if r.get("bits_stuck") not in (None, "", 0, "0")]
        if "bits_stuck" in table
        else []
    )
    if stuck:
        section.blocks.append(
            _free_table(
                [{k: r[k] for k in ("obsid", "ccd", "quadrant", "bits_stuck")} for r in stuck], "Stuck bits"
            )
        )
    return section


def _railed(table) -> Beam:
    """Railed pixels by CCD and quadrant, summed over the frames, with the worst frame."""
    cells = {}
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            values = part.floats("saturated")
            text, obsids = NOT_MEASURED, ()
            if np.isfinite(values).any():
                text = f"{np.nansum(values):.0f}"
                if values[np.isfinite(values)].max() > 0 and "obsid" in part:
                    obsids = obsid_tuple([part["obsid"].tolist()[int(np.nanargmax(values))]])
            cells[ccd, quadrant] = Cell(text, "none" if text == NOT_MEASURED else "", obsids=obsids)
    return Beam(cells, "Railed pixels, sum over the frames, and the frame with most")


def _is_pixel_check(cell: dict) -> bool:
    name = str(cell.get("check", "")).lower()
    return "satur" in name or "lost" in name


# ---- compliance -----------------------------------------------------------------------------------------------
def compliance(data: ReportData) -> Section:
    """All compliance tables of image measurements: the worst value with its limits, red where it fails."""
    section = Section("Compliance", [], "compliance")
    cells = [c for c in data.compliance if not is_hk(c) and not _is_pixel_check(c)]
    if not cells:
        section.blocks.append(Note("The verdict holds no compliance cells.", "missing"))
        return section
    section.blocks.append(
        Text(
            "Each cell shows the worst value of its frames, with the upper and lower limit beside it. Green is within limits, "
            "red is outside, with the offending OBSIDs; grey was not measured. Limits are inclusive."
        )
    )
    section.blocks += compliance_blocks(cells)
    return section


def compliance_blocks(cells: list[dict]) -> list[TableBlock]:
    groups: dict[str, list[dict]] = defaultdict(list)
    for cell in cells:
        groups[str(cell.get("check", "?"))].append(cell)
    return [_compliance_table(check, group) for check, group in groups.items()]


def _compliance_table(check: str, cells: list[dict]) -> TableBlock:
    """Pivot on the quadrant, else on the CCD, else a plain list; other keys label the rows."""
    keys = list(
        dict.fromkeys(k for cell in cells for k in cell if k not in _VALUE_KEYS and cell.get(k) is not None)
    )
    pivot = next((k for k in ("quadrant", "ccd") if k in keys), None)
    others = [k for k in ("ccd", "region", "column", "obsid") if k in keys and k != pivot]
    others += [k for k in keys if k not in others and k != pivot]
    bad = sum(cell.get("ok") is False for cell in cells)
    blank = sum(state_of(cell.get("ok")) == "none" for cell in cells)
    unit = next((pretty_unit(str(c["unit"])) for c in cells if c.get("unit")), "")
    caption = f"{title(check)}{f' [{unit}]' if unit else ''}: {len(cells) - bad - blank} of {len(cells)} within limits"
    caption += f", {bad} outside" if bad else ""
    caption += f", {blank} not measured" if blank else ""
    bounds = {(cell.get("low"), cell.get("high")) for cell in cells if _has_bounds(cell)}
    common = len(bounds) == 1 and len(cells) > 1
    if common:
        caption += f"; limits {_bounds(*next(iter(bounds)))}"
    values = (
        sorted({_key(cell[pivot]) for cell in cells if cell.get(pivot) is not None}, key=str)
        if pivot
        else [None]
    )
    rows: dict[tuple, dict] = defaultdict(dict)
    for cell in cells:
        rows[tuple(_key(cell.get(k)) for k in others)][_key(cell.get(pivot)) if pivot else None] = cell
    if len(rows) > _MANY_ROWS and "column" in others:
        rows = _join_columns(rows, others.index("column"))
        caption += "; columns without a fault are joined, with the value nearest to its limit"
    body = [
        [Cell(_key_text(k, v)) for k, v in zip(others, names, strict=True)]
        + [_compliance_cell(found[v], common) if v in found else Cell("", "") for v in values]
        for names, found in list(rows.items())[: 2 * LONG_TABLE]
    ]
    header = [title(k) for k in others] + ([_key_text(pivot, v) for v in values] if pivot else ["Value"])
    return TableBlock(header, body, caption, len(rows) - len(body), "verdict.json")


#: Rows of a compliance table above which the columns of a test are joined.
_MANY_ROWS = 36


def _join_columns(rows: dict[tuple, dict], place: int) -> dict[tuple, dict]:
    """Rows of columns that pass in all their cells as one row, with the cell nearest to its limit of each.

    `place` is that of the column among the keys of a row. Rows with a cell that fails or was not measured stay.
    """
    good: dict[tuple, list[dict]] = defaultdict(list)
    keys = {}
    for names, found in rows.items():
        if all(state_of(cell.get("ok")) == "pass" for cell in found.values()):
            keys[names] = names[:place] + names[place + 1 :]
            good[keys[names]].append(found)
    joined: dict[tuple, dict] = {}
    for names, found in rows.items():
        members = good[keys[names]] if names in keys else []
        if len(members) < 2:
            joined[names] = found
        elif found is members[0]:
            label = (*names[:place], f"{len(members)} columns", *names[place + 1 :])
            pivots = dict.fromkeys(v for member in members for v in member)
            joined[label] = {
                v: min((member[v] for member in members if v in member), key=_margin) for v in pivots
            }
    return joined


def _margin(cell: dict) -> float:
    """Distance of a value from its nearest limit, in units of the width between the limits where there are two."""
    value = cell.get("worst") if is_number(cell.get("worst")) else cell.get("value")
    bounds = [cell.get(k) for k in ("low", "high") if is_number(cell.get(k))]
    if not is_number(value) or not bounds:
        return math.inf
    width = abs(bounds[-1] - bounds[0]) or 1.0
    return min(abs(value - bound) for bound in bounds) / width


def _key(value):
    """A key value that can be counted, whatever the file holds."""
    return value if value is None or isinstance(value, (int, str)) else str(value)


def _key_text(key: str, value) -> str:
    if value is None:
        return "all"
    if key == "ccd":
        return f"CCD{value}"
    if key == "column" and isinstance(value, int):
        return f"col{value:03d}"
    return REGION_NAMES.get(value, str(value)) if key == "region" else str(value)


def _has_bounds(cell: dict) -> bool:
    return is_number(cell.get("low")) or is_number(cell.get("high"))


def _compliance_cell(cell: dict, common: bool) -> Cell:
    """Worst value, with its limits unless they are common to the table; offenders of a failing cell."""
    value = cell.get("worst") if is_number(cell.get("worst")) else cell.get("value")
    state = state_of(cell.get("ok"))
    obsids = obsid_tuple(cell.get("obsids")) if state == "fail" else ()
    low, high = ("", "") if common and state != "fail" else (bound(cell.get("low")), bound(cell.get("high")))
    return Cell(with_error(value, cell.get("err")), state, low, high, obsids)


# ---- offsets and noise ------------------------------------------------------------------------------------------
def checks(data: ReportData) -> Section:
    """Check figures of offsets and noise against time, and the frames left out."""
    section = Section("Offsets and noise", [], "checks")
    table = data.table("offsets")
    if table is None:
        section.blocks.append(Note(data.why_no_table("offsets"), "missing"))
    else:
        times, xlabel = fig.frame_times(data)
        for name, column, text, least in _CHECK_FIGURES:
            if column == "delta" and column in table and not np.nan_to_num(table.floats(column)).any():
                section.blocks.append(
                    Text("No column has several frames, whose offsets could be compared with their median.")
                )
                continue

            def draw(figure, column=column, least=least):
                _draw_check(figure, table, column, times, xlabel, least)

            caption = f"{text}, against {xlabel}, by CCD and quadrant. Bars are 1 σ errors; arrows are points off the scale."
            section.blocks.append(data.figures.make(f"check_{name}", caption, draw, height=2.55))
    section.sections.append(Section("Frames left out", excluded_blocks(data), "excluded"))
    return section


_CHECK_LABELS = {"offset": "offset − level [ADU]", "delta": "offset − median [ADU]", "noise": "noise [ADU]"}
_CHECK_FIGURES = (
    (
        "offset",
        "offset",
        "Offset (clipped mean) of each region above the quadrant's level (grey figure: median of the prescan, ADU)",
        1.0,
    ),
    ("delta_offset", "delta", "Offset minus the median over frames of the same column", 0.2),
    ("noise", "noise", "Noise (clipped standard deviation, quantisation removed) of each region", 0.02),
)


def _draw_check(figure, table, column, times, xlabel, least) -> None:
    if column not in table:
        raise fig.NoData(f"table {table.name} has no column {column}")
    axes = fig.beam_panels(figure)
    regions = [r for r in ("pre", "img", "ove", "pov") if r in table.distinct("region")]
    curves = []
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        level = _level(part) if column == "offset" else 0.0
        for region in regions:
            rows = part.select(region=region)
            y = rows.floats(column) - level
            error = rows.floats(f"{column}_err") if column != "delta" else rows.floats("offset_err")
            x = fig.abscissa(rows["obsid"], times)
            fig.points(ax, x, y, error, fig.REGION_COLOURS[region], fig.MARKERS[region])
            curves.append((ax, x, y, fig.REGION_COLOURS[region]))
        if column == "offset" and np.isfinite(level):
            ax.text(
                0.96,
                0.95,
                f"{level:.1f}",
                transform=ax.transAxes,
                ha="right",
                va="top",
                fontsize=5.5,
                color="#666666",
            )
    fig.robust_limits(axes, curves, least)
    fig.share_limits(axes, y=False)
    fig.axis_labels(figure, xlabel, _CHECK_LABELS[column])
    fig.legend(
        figure, {REGION_NAMES[r]: {"color": fig.REGION_COLOURS[r], "marker": fig.MARKERS[r]} for r in regions}
    )


def _level(part) -> float:
    """Level of a quadrant: median over frames of its prescan, of all regions without one."""
    for rows in (part.select(region="pre"), part):
        values = rows.floats("offset")
        values = values[np.isfinite(values)]
        if len(values):
            return float(np.median(values))
    return float("nan")


def excluded_blocks(data: ReportData) -> list:
    """Frames left out by a rule or by the analyst, with the cause."""
    items = [as_dict(item) for item in as_list(data.verdict.get("excluded"))]
    source = "verdict.json"
    if not items:
        table = data.table("selection")
        if table is not None and "use" in table:
            items = [{**row, "by": "rule"} for row in table.rows() if row.get("use") in (False, "False", 0)]
            source = "tables/selection.ecsv"
    if not items:
        return [Text("No frame was left out.")]
    rows = [
        [
            Cell("", obsids=obsid_tuple([item.get("obsid")])),
            Cell(label(item.get("ccd"), item.get("quadrant")) or "all", align="l"),
            Cell(_text(item.get("cause")), align="l"),
            Cell(_text(item.get("by")), align="l"),
        ]
        for item in items[:LONG_TABLE]
    ]
    return [TableBlock(["OBSID", "Where", "Cause", "By"], rows, "", len(items) - len(rows), source)]


# ---- preparation, inputs, appendix ---------------------------------------------------------------------------------
_OFFSETS = {
    "row": "one offset per row, the clipped mean of its scan pixels",
    "smooth": "row offsets smoothed along the rows",
    "median": "one offset per quadrant",
    "none": "no offset subtracted",
}
_SCANS = {"pre": "prescan", "ove": "overscan", "both": "prescan and overscan"}


def preparation(data: ReportData) -> Section:
    """Steps of the image preparation and the calibration products that were used."""
    section = Section("Image preparation", [], "preparation")
    every = as_dict(data.verdict.get("options"))
    options = as_dict(every.get("prep"))
    if not options and every:
        section.blocks.append(Text("No sub-task of this run reads prepared images."))
    elif not options:
        section.blocks.append(Note("The verdict does not list options of the image preparation.", "missing"))
    else:
        steps = [
            ("Saturated, lost and off-window pixels", "flagged in the DQ plane"),
            (
                "Offset",
                f"{_OFFSETS.get(options.get('offset'), _text(options.get('offset')))}; from {_SCANS.get(options.get('scan'), _text(options.get('scan')))}",
            ),
        ]
        for key, name in (
            ("use_mask", "Cosmetics mask"),
            ("use_bias", "Residual bias structure"),
            ("use_flat", "Flat field"),
        ):
            if key in options:
                steps.append((name, "applied where a product is given" if options[key] else "not applied"))
        if "cosmics" in options:
            steps.append(("Cosmic rays", "rejected" if options["cosmics"] else "not rejected frame by frame"))
        known = {"offset", "scan", "use_mask", "use_bias", "use_flat", "cosmics"}
        steps += [(title(k), _text(v)) for k, v in options.items() if k not in known]
        section.blocks.append(Facts(steps, "Steps, in order"))
    used = as_dict(data.verdict.get("products_used"))
    if used:
        pairs = [(title(kind), _product_text(where)) for kind, where in used.items()]
        section.blocks.append(Facts(pairs, "Calibration products used"))
    else:
        section.blocks.append(Text("No calibration product was used."))
    return section


def _product_text(where) -> str:
    """``CCD1: file, CCD2: file``: names, not the folders of this machine, and each file once."""
    if not isinstance(where, dict):
        return folder_name(where)
    found: dict[str, str] = {}
    numbers: list[str] = []

    def walk(key, value):
        if isinstance(value, dict):
            for inner, item in value.items():
                name = f"CCD{inner}" if str(inner) in "123" else str(inner)
                walk(f"{key} {name}".strip() if name in QUADRANTS else name, item)
        elif isinstance(value, str):
            found.setdefault(folder_name(value), key)
        else:
            numbers.append(f"{key} {_text(value)}".strip())

    walk("", where)
    return ", ".join([*(f"{key}: {text}" for text, key in found.items()), *dict.fromkeys(numbers)])


def inputs(data: ReportData) -> Section:
    """Limits used, inputs with checksums, products made."""
    section = Section("Inputs and products", [], "inputs")
    limits = as_dict(data.verdict.get("limits"))
    pairs = [(title(k), _text(v)) for k, v in limits.items()] or [("Limits", "not named in the verdict")]
    section.blocks.append(Facts(pairs, "Limits used"))
    files = as_dict(data.verdict.get("inputs"))
    if files:
        sums = {
            str(name): as_dict(v).get("sha256") if isinstance(v, dict) else v for name, v in files.items()
        }
        if len(sums) > LONG_TABLE:
            section.blocks.append(_one_sum(sums))
            sums = dict(list(sums.items())[:2] + list(sums.items())[-2:])
        lines = [f"{value or '-':<64}  {name}" for name, value in sums.items()]
        caption = "Inputs, with sha256" if len(sums) == len(files) else "First and last inputs, with sha256"
        section.blocks.append(Verbatim("\n".join(lines), caption))
    else:
        section.blocks.append(Note("The verdict lists no inputs.", "missing"))
    if data.products:
        rows = [[Cell(p.name, align="l"), Cell(f"{p.stat().st_size / 1e6:.1f}")] for p in data.products]
        section.blocks.append(
            TableBlock(["Product", "MB"], rows, "Products made, in products/", compact=True)
        )
    else:
        section.blocks.append(Text("The test made no products."))
    return section


def _one_sum(sums: dict[str, str | None]) -> Text:
    """One checksum for many inputs, which `sha256sum` finds again."""
    from hashlib import sha256

    lines = "".join(f"{sums[name] or '-'}  {name}\n" for name in sorted(sums))
    return Text(
        f"The {len(sums)} inputs are listed in verdict.json, each with its sha256. The sha256 of that list, one line "
        f"“checksum  name” each as sha256sum prints them, ordered by name: {sha256(lines.encode()).hexdigest()}."
    )


def appendix(data: ReportData) -> Section:
    """All options of all sub-tasks, nothing shortened."""
    import json

    options = data.verdict.get("options")
    if not options:
        return Section("Appendix: options", [Text("The verdict lists no options.")], "appendix")
    text = json.dumps(options, indent=1, ensure_ascii=False, sort_keys=False)
    return Section(
        "Appendix: options", [Text("All options of the run, as used."), Verbatim(text)], "appendix"
    )
