"""Results of several tests in one: the cross-talk matrix of all wavelengths, with tables, product and report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

#: Requirement on the largest coefficient of a victim and on the others, where no test's verdict tells its limits.
REQUIREMENT = {"crosstalk_largest": 6.0e-4, "crosstalk_second": 7.6e-5}


def join_crosstalk(found: list[tuple[dict, Path, object]], into: Path, report: bool = True) -> dict:
    """Join cross-talk products.

    Parameters
    ----------
    found : (verdict, path of the product, its `ProductInfo`) of each test
    into : folder that gets ``crosstalk.ecsv``, ``crosstalk_victims.ecsv`` and the FITS product
    report : whether it also gets ``crosstalk_<block>.html`` and ``.pdf``

    Returns
    -------
    dict: block, tests, product, report, ok, violators, unmeasured, differing, median_err, text (lines for a person)

    Raises
    ------
    InputError : fewer than two tests, or of different blocks, or one given twice.
    """
    from calcamp.analysis import crosstalk as xt
    from calcamp.data.products import load_crosstalk

    verdicts = [verdict for verdict, _, _ in found]
    block = _one_block(verdicts)
    joined = xt.combine([load_crosstalk(path) for _, path, _ in found])
    bounds = _bounds(verdicts)
    pairs, victims = _pair_rows(joined), xt.victim_rows(joined.coefficient, joined.err)
    into.mkdir(parents=True, exist_ok=True)
    _write_tables(into, pairs, victims, verdicts)
    product = _write_product(into, block, joined, found)
    told = _told(block, verdicts, pairs, victims, bounds)
    page = _write_report(into, block, verdicts, bounds, told["text"]) if report else None
    return {**told, "product": str(product), "report": page and str(page)}


def _one_block(verdicts: list[dict]) -> str:
    from calcamp.data.files import InputError

    names = [f"{v['session']}/{v['test']}" for v in verdicts]
    if len(names) < 2:
        raise InputError(
            "one test is not joined with anything", expected="results folders of two tests or more"
        )
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"{double[0]} is given twice", expected="each test once")
    blocks = sorted({str(v.get("block")) for v in verdicts})
    if len(blocks) > 1:
        raise InputError(f"the tests are of blocks {' and '.join(blocks)}", expected="tests of one block")
    return blocks[0]


def _bounds(verdicts: list[dict]) -> dict[str, float]:
    """Requirement: the limits that the tests were judged by, the tightest of them."""
    out = {}
    for name, usual in REQUIREMENT.items():
        cells = [c for v in verdicts for c in v.get("compliance") or [] if c.get("check") == name]
        highs = [c["high"] for c in cells if c.get("high") is not None]
        out[name] = min(highs, default=usual)
    return out


def _pair_rows(joined) -> list[dict]:
    from calcamp.analysis import crosstalk as xt

    differs = xt.differing(joined)
    rows = []
    for v, victim in enumerate(xt.CHANNELS):
        for s, source in enumerate(xt.CHANNELS):
            if s == v:
                continue
            value, err = float(joined.coefficient[s, v]), float(joined.err[s, v])
            rows.append(
                {
                    "ccd": int(victim[0]),
                    "quadrant": victim[1],
                    "source": source,
                    "coefficient": value,
                    "coefficient_err": err,
                    **xt.pair_strength(value, err),
                    "chi2": float(joined.chi2[s, v]),
                    "n": int(joined.n[s, v]),
                    "flag": "differs between tests"
                    if differs[s, v]
                    else ""
                    if value == value
                    else "not measured",
                }
            )
    return rows


def _write_tables(into: Path, pairs: list[dict], victims: list[dict], verdicts: list[dict]) -> None:
    from calcamp.data.products import CROSSTALK_UNITS, CROSSTALK_WORDS
    from calcamp.data.tables import write_table

    meta = {"tests": [f"{v['session']}/{v['test']}" for v in verdicts]}
    words = {**CROSSTALK_WORDS, "chi2": "of the tests about their mean", "n": "tests"}
    columns = {name: [row[name] for row in pairs] for name in pairs[0]}
    write_table(into / "crosstalk.ecsv", columns, CROSSTALK_UNITS, meta, words)
    columns = {name: [row[name] for row in victims] for name in victims[0]}
    write_table(into / "crosstalk_victims.ecsv", columns, {}, meta, {"ccd": "of the victim"})


def _write_product(into: Path, block: str, joined, found: list) -> Path:
    from calcamp.analysis.crosstalk import CHANNELS
    from calcamp.data.fitsfile import write_product
    from calcamp.data.products import crosstalk_images, product_name, provenance

    first = found[0][0]
    cards = provenance(
        session=first["session"],
        block=block,
        chamber=str(first.get("chamber") or ""),
        test=" ".join(v["test"] for v, _, _ in found),
        inputs={f"{v['session']}/{v['test']}/{path.name}": info.sha256 for v, path, info in found},
        channels=" ".join(CHANNELS),
    )
    path = into / product_name("crosstalk", block)
    more = {"CHI2": joined.chi2, "NTESTS": joined.n.astype("int32")}
    return write_product(path, cards, crosstalk_images(joined.coefficient, joined.err, **more))


def _told(block: str, verdicts: list[dict], pairs: list[dict], victims: list[dict], bounds: dict) -> dict:
    import statistics

    violators, unmeasured = [], []
    for row in victims:
        name = f"{row['ccd']}{row['quadrant']}"
        if row["flag"]:
            unmeasured.append(name)
        for part in ("largest", "second"):
            if row[f"{part}_upper95"] > bounds[f"crosstalk_{part}"]:
                violators.append(
                    {
                        "victim": name,
                        "source": row[f"{part}_source"],
                        "requirement": part,
                        "coefficient": row[part],
                        "err": row[f"{part}_err"],
                        "upper95": row[f"{part}_upper95"],
                        "limit": bounds[f"crosstalk_{part}"],
                    }
                )
    known = [row["coefficient_err"] for row in pairs if row["coefficient_err"] > 0]
    differing = [f"{r['source']}>{r['ccd']}{r['quadrant']}" for r in pairs if r["flag"].startswith("differs")]
    tests = [f"{v['session']}/{v['test']}" for v in verdicts]
    median = statistics.median(known) if known else None
    text = [f"cross-talk of block {block} from {', '.join(tests)}"]
    text.append(f"{len(known)} of {len(pairs)} pairs measured, median error {median or 0.0:.2g}")
    for v in violators:
        size = f"({1e6 * v['coefficient']:+.1f} +- {1e6 * v['err']:.1f}) 1e-6, upper 95 % bound {1e6 * v['upper95']:.1f}"
        text.append(
            f"{v['source']} -> {v['victim']}: {size}; {v['requirement']} at most {1e6 * v['limit']:g}"
        )
    if unmeasured:
        text.append(f"not measured: {', '.join(unmeasured)}")
    if differing:
        text.append(f"differ between the tests, so light rather than electronics: {', '.join(differing)}")
    ok = not violators and not unmeasured
    text.append("the requirement is met" if ok else "the requirement is NOT met")
    return {
        "block": block,
        "tests": tests,
        "ok": ok,
        "violators": violators,
        "unmeasured": unmeasured,
        "differing": differing,
        "median_err": median,
        "text": text,
    }


def _write_report(into: Path, block: str, verdicts: list[dict], bounds: dict, lead: list[str]) -> Path:
    from calcamp.cli.document import write_document
    from calcamp.report import crosstalk as pages
    from calcamp.report.base import Section
    from calcamp.report.figures import FigureBook
    from calcamp.report.tables import read_table

    table, victims = (read_table(into / f"{name}.ecsv") for name in ("crosstalk", "crosstalk_victims"))
    data = SimpleNamespace(figures=FigureBook(into))
    limits = bounds["crosstalk_largest"], bounds["crosstalk_second"]
    blocks = [*pages.matrix(data, table), *pages.worst(table), *pages.victims(victims, limits)]
    title = f"Cross-talk of block {block}, {len(verdicts)} tests"
    section = Section("All tests together", blocks, "crosstalk")
    return write_document(into, f"crosstalk_{block}", title, lead, [section])[-1]
