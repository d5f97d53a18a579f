"""Sections of PSF01 and PSF02 on cross-talk: matrix of the twelve channels, worst pairs, requirement."""

from __future__ import annotations

import numpy as np

from calcamp.analysis.crosstalk import CHANNELS
from calcamp.report import figures as fig
from calcamp.report.base import (
    Cell,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    is_number,
    number,
    with_error,
)

#: Effect at full scale, ADU, from which a coefficient is shown in colour (predecessor's workbook).
LEVELS = ((30.0, "red"), (5.0, "orange"), (2.0, "purple"))


def sections(data: ReportData) -> list[Section]:
    table = data.table("crosstalk")
    if table is None:
        return [Section("Cross-talk", data.missing("crosstalk"), "crosstalk")]
    return [
        Section(
            "Cross-talk",
            [
                Text(
                    "What a spot of one channel leaves in the eleven others, read out in step with it: coefficient = ADU in the "
                    "victim per ADU of a source that stays as bright for some pixels, signed. It is the sum over the same instant "
                    "and the pixels just before and after, so it depends neither on the width of the spots nor on the "
                    "bandwidth of the chain, and compares with steps of injected charge. “Same pixel” is the slope at the same instant alone, "
                    "the usual figure. All sources are fitted together, with the level beside each spot free. Requirement: the "
                    "largest of a victim at most 6·10⁻⁴, the others at most 7.6·10⁻⁵ (5 ADU at full scale), judged on the upper 95 % bound."
                ),
                *matrix(data, table),
                *worst(table),
                *victims(data.table("crosstalk_victims")),
            ],
            "crosstalk",
        )
    ]


def matrix(data: ReportData, table) -> list:
    caption = (
        "Coefficients × 65536 (ADU at full scale): sources down, victims across. Area of a disc in proportion to the size; "
        "green positive, red negative; pale: below 3 errors. The black disc is 1 ADU."
    )
    return [
        data.figures.make(
            "crosstalk_matrix", caption, lambda f: draw_matrix(f, table.rows()), height=4.6, width=75.0
        )
    ]


def draw_matrix(figure, rows: list[dict]) -> None:
    """Discs of all pairs, from rows of a table ``crosstalk``."""
    ax = figure.add_axes((0.09, 0.04, 0.84, 0.86))
    rows = [r for r in rows if is_number(r["full_scale"])]
    if not rows:
        raise fig.NoData("no coefficient was measured")
    most = max(abs(r["full_scale"]) for r in rows)
    scale = 330.0 / max(most, 5.0)
    for r in rows:
        x, y = CHANNELS.index(f"{r['ccd']}{r['quadrant']}"), CHANNELS.index(r["source"])
        seen = is_number(r["significance"]) and r["significance"] >= 3
        colour = fig.COLOURS["green"] if r["full_scale"] > 0 else fig.COLOURS["red"]
        ax.scatter(
            x, y, s=scale * abs(r["full_scale"]), color=colour, alpha=1.0 if seen else 0.25, linewidths=0
        )
    for k in range(12):
        ax.plot(k, k, "x", color="#bbbbbb", markersize=4)
    ax.scatter(11.9, -1.3, s=scale, color="#222222", clip_on=False, linewidths=0)
    ax.text(11.6, -1.3, "1 ADU", ha="right", va="center", fontsize=6, clip_on=False)
    for edge in (3.5, 7.5):
        ax.axhline(edge, color="#cccccc", linewidth=0.5)
        ax.axvline(edge, color="#cccccc", linewidth=0.5)
    ax.set(xlim=(-0.6, 11.6), ylim=(11.6, -0.6), xticks=range(12), yticks=range(12), aspect="equal")
    ax.set_xticklabels(CHANNELS)
    ax.set_yticklabels(CHANNELS)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set(xlabel="victim", ylabel="source")


def worst(table) -> list:
    """The largest coefficients: of a test with its parts in time, of a bench with its steps, of several tests with their chi2."""
    rows = [r for r in table.rows() if is_number(r["coefficient"])]
    rows.sort(key=lambda r: -abs(r["coefficient"]))
    more = _more(rows[0]) if rows else {}
    cells = []
    for r in rows[:15]:
        size = abs(r["full_scale"])
        level = next((name for bound, name in LEVELS if size > bound), "")
        cells.append(
            [
                Cell(f"{r['source']} → {r['ccd']}{r['quadrant']}"),
                Cell(with_error(1e6 * r["coefficient"], 1e6 * r["coefficient_err"])),
                Cell(with_error(r["full_scale"], r["full_scale_err"]), "fail" if level == "red" else ""),
                Cell(number(r["significance"], 2)),
                *(Cell(text(r)) for text in more.values()),
            ]
        )
    header = ["Source → victim", "Coefficient [10⁻⁶]", "At full scale [ADU]", "Coefficient/error", *more]
    median = float(np.median([r["coefficient_err"] for r in rows])) if rows else None
    blocks: list = [
        TableBlock(
            header, cells, "The largest coefficients", max(0, len(rows) - 15), "tables/crosstalk.ecsv", True
        )
    ]
    if median is not None:
        blocks.append(
            Note(
                f"Median error of a coefficient: {1e6 * median:.2f}·10⁻⁶, {65536 * median:.2f} ADU at full scale."
            )
        )
    return blocks


def _more(row: dict) -> dict:
    """Further columns of a table of coefficients: header -> text of a row."""
    if "late" in row:
        return {
            "Same pixel [10⁻⁶]": lambda r: _times(r, "same_pixel", 1e6),
            "Early [%]": lambda r: _times(r, "early", 100),
            "Late [%]": lambda r: _times(r, "late", 100),
            "Quadratic/error": _quadratic,
        }
    if "at_largest" in row:
        return {
            "At the highest step [10⁻⁶]": lambda r: _times(r, "at_largest", 1e6),
            "Quadratic/error": _quadratic,
            "χ²/dof": lambda r: number(r["chi2_dof"], 3),
        }
    return {"χ² of the tests": lambda r: number(r["chi2"], 3), "Tests": lambda r: number(r["n"])}


def bench_lines(data, table, steps) -> list:
    """What the victims of the six largest couplings show at each step of their source."""
    rows = sorted(
        (r for r in table.rows() if is_number(r["coefficient"])), key=lambda r: -abs(r["coefficient"])
    )
    caption = "Victim against source at each step of injected charge, the six largest couplings; bars are 1 σ, line: the fit."
    return [
        data.figures.make(
            "bench_lines", caption, lambda f: _draw_bench(f, rows[:6], steps.rows()), height=3.6
        )
    ]


def _draw_bench(figure, rows: list[dict], steps: list[dict]) -> None:
    if not rows:
        raise fig.NoData("no coefficient was measured")
    for k, r in enumerate(rows):
        ax = figure.add_axes((0.075 + 0.325 * (k % 3), 0.59 - 0.48 * (k // 3), 0.255, 0.34))
        mine = [
            s
            for s in steps
            if (s["source"], s["ccd"], s["quadrant"]) == (r["source"], r["ccd"], r["quadrant"])
        ]
        level, mean, err = (np.array([s[n] for s in mine], float) for n in ("level", "mean", "mean_err"))
        constant = np.average(mean - r["coefficient"] * level, weights=err**-2.0)
        ends = np.array([0.0, level.max()])
        ax.plot(ends / 1000, constant + r["coefficient"] * ends, color=fig.COLOURS["orange"], linewidth=0.8)
        ax.errorbar(
            level / 1000, mean, err, fmt="o", color=fig.COLOURS["blue"], markersize=2.5, elinewidth=0.6
        )
        ax.set_title(f"{r['source']} → {r['ccd']}{r['quadrant']}", weight="bold")
    fig.axis_labels(figure, "source [kADU]", "victim [ADU]")


def _quadratic(r: dict) -> str:
    value, err = r.get("quadratic"), r.get("quadratic_err")
    return number(value / err, 2) if is_number(value) and is_number(err) and err > 0 else "–"


def victims(table, bounds: tuple[float, float] = (6.0e-4, 7.6e-5)) -> list:
    """The two largest of each victim, beside the requirement `bounds` on the largest and on the others."""
    if table is None:
        return []
    rows = []
    for r in table.rows():
        rows.append(
            [
                Cell(f"{r['ccd']}{r['quadrant']}"),
                Cell(str(r.get("largest_source") or "–")),
                Cell(_times(r, "largest", 1e6)),
                Cell(_bound(r, "largest"), _state(r, "largest", bounds[0])),
                Cell(str(r.get("second_source") or "–")),
                Cell(_times(r, "second", 1e6)),
                Cell(_bound(r, "second"), _state(r, "second", bounds[1])),
                Cell(number(r.get("significant"))),
            ]
        )
    header = ["Victim", "Largest from", "[10⁻⁶]", "95 % bound", "Second from", "[10⁻⁶]", "95 % bound", "Seen"]
    return [
        TableBlock(
            header,
            rows,
            "The two largest of each victim, and the upper 95 % bound of their size",
            compact=True,
        )
    ]


def _times(r: dict, name: str, factor: float) -> str:
    value, err = r.get(name), r.get(f"{name}_err")
    return with_error(factor * value, factor * err) if is_number(value) and is_number(err) else "–"


def _bound(r: dict, name: str) -> str:
    value = r.get(f"{name}_upper95")
    return number(1e6 * value, 3) if is_number(value) else "–"


def _state(r: dict, name: str, limit: float) -> str:
    value = r.get(f"{name}_upper95")
    return ("pass" if value <= limit else "fail") if is_number(value) else "none"
