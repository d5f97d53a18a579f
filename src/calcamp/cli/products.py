"""``calcamp products``: calibration products of a block. Using a product is an act, not an accident."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True)


def _workspace_block(block: str, beside: Path) -> Path:
    """The workspace's own copy of a block file; made from the package's when there is none yet."""
    import shutil

    from calcamp.config.lookup import find_file
    from calcamp.paths import packaged_config

    path = find_file("blocks", block, beside)
    if packaged_config() in path.parents:
        own = beside / "config" / "blocks" / path.name
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, own)
        path = own
    return path


@app.command("list")
def list_(
    block: Annotated[str, typer.Argument(help="block: a name, or a path of its YAML")],
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """List the calibration products that a block uses: kind, CCD, serial, test, age.

    Example:  calcamp products list NOSTROMO
    """
    from calcamp.config.lookup import load_block
    from calcamp.data.products import product_info

    found = load_block(block, Path.cwd())
    rows = []
    for kind, value in found.product_paths().items():
        for path in _paths(value):
            row = {"kind": kind, "path": path, "found": Path(path).is_file()}
            if row["found"]:
                info = product_info(kind, path, checksum=False)
                days = (time.time() - Path(path).stat().st_mtime) / 86400
                row |= {
                    "ccd": info.ccd,
                    "serial": info.serial,
                    "test": info.test,
                    "days": round(days, 1),
                    "offset": info.offset,
                }
            rows.append(row)
    if as_json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"block {found.block} uses no calibration products; add one with 'calcamp products promote'")
    else:
        for row in rows:
            said = (
                f"CCD{row.get('ccd') or '-'} {row.get('serial', '')} {row.get('test', '')} {row.get('days', '')} days"
                if row["found"]
                else "NOT FOUND"
            )
            print(f"{row['kind']:10s} {said:40s} {row['path']}")


def _paths(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [p for item in value.values() for p in _paths(item)] if isinstance(value, dict) else []


@app.command()
def promote(
    test: Annotated[Path, typer.Argument(help="results folder of a test")],
    kind: Annotated[str, typer.Option(help="kind of product: bias, mask, dq, flat, gain, ...")],
    block: Annotated[
        str, typer.Option(help="block: a name, or a path of its YAML; that of the test by default")
    ] = "",
    into: Annotated[Path, typer.Option(help="folder of the block's calibration products")] = Path(
        "calproducts"
    ),
    wavelength: Annotated[
        int | None, typer.Option(help="wavelength [nm], for products that have one")
    ] = None,
) -> None:
    """Make the products of a test those of its block: copied, serial checked, block YAML updated.

    The file that was there before is kept beside it with its date. Sessions use the new product from their
    next run on; only what depends on it is done again.

    Example:  calcamp products promote results_atCALDATA/D11/BIAS01 --kind bias
    """
    from calcamp.config.lookup import load_block
    from calcamp.config.yamlfile import edit_yaml
    from calcamp.data.files import InputError
    from calcamp.data.products import check_serial, kind_of

    name = kind_of(kind).name
    verdict = _verdict(test)
    verdict_path = test / "verdict.json"
    made = _made(test, verdict, name)
    if wavelength is not None:
        made = [p for p in made if p.get("wavelength") in (None, wavelength)]
    if not made:
        raise InputError(f"{verdict['test']} made no {name} product at {wavelength} nm", file=verdict_path)
    block_path = _workspace_block(block or verdict["block"], Path.cwd())
    used = load_block(str(block_path), Path.cwd())
    if verdict["status"] == "failed":
        raise InputError(
            f"{verdict['test']} has failed sub-tasks", file=verdict_path, remedy="run the session again first"
        )
    changes, lines = {}, []
    # Everything is checked before anything is written.
    for product in made:
        path = test / product["file"]
        info = _unchanged(name, path, product)
        ccd = info.ccd or product.get("ccd")
        if ccd:
            check_serial(info.serial, used.serials[f"ccd{ccd}"], path, name, ccd)
    folder = (Path.cwd() / into / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for product in made:
        target = _place(test / product["file"], folder, lines)
        relative = _relative(target, block_path.parent)
        key: list = ["products", name]
        if product.get("wavelength") is not None:
            key.append(f"nm{product['wavelength']}")
        if product.get("ccd"):
            key.append(product["ccd"])
        changes[tuple(key)] = relative
        lines.append(f"{name} of CCD{product.get('ccd') or 's'}: {target}")
    edit_yaml(block_path, changes)
    print("\n".join(lines))
    print(f"{block_path}: updated; the next run of a session uses them")
    if verdict["verdict"] == "fail":
        flags = ", ".join(sorted({f["name"] for f in verdict["flags"]}))
        print(f"note: {verdict['test']} did not pass ({flags})", file=sys.stderr)


def _verdict(test: Path) -> dict:
    from calcamp.data.files import InputError, read_json

    path = test / "verdict.json"
    if not path.is_file():
        raise InputError(
            "no verdict.json", file=test, expected="the results folder of a test that was judged"
        )
    return read_json(path)


def _made(test: Path, verdict: dict, kind: str) -> list[dict]:
    """Products of a kind that a test made."""
    from calcamp.data.files import InputError

    made = [p for p in verdict["products"] if p["kind"] == kind]
    if not made:
        kinds = sorted({p["kind"] for p in verdict["products"]})
        raise InputError(
            f"{verdict['test']} made no {kind} product",
            file=test / "verdict.json",
            expected=", ".join(kinds) or "none at all",
        )
    return made


def _unchanged(kind: str, path: Path, product: dict):
    """Identity of a product that is still what its test made."""
    from calcamp.data.files import InputError
    from calcamp.data.products import product_info

    info = product_info(kind, path)
    if product.get("sha256") and info.sha256 != product["sha256"]:
        raise InputError("the product changed since it was made", file=path, remedy="run the session again")
    return info


def _place(source: Path, folder: Path, lines: list[str]) -> Path:
    """Copy a product into `folder`; a former one of its name is kept with its date, which goes to `lines`."""
    import shutil

    from calcamp.data.files import sha256

    target = folder / source.name
    if target.is_file() and sha256(target) != sha256(source):
        lines.append(_keep_former(target))
    part = target.with_name(f"{target.name}.part")
    shutil.copy2(source, part)
    part.replace(target)
    return target


def _keep_former(target: Path) -> str:
    """Move a file aside under the date of its last change; what was done, in words."""
    from datetime import datetime

    stamp = datetime.fromtimestamp(target.stat().st_mtime).strftime("%Y%m%d_%H%M%S")
    kept = target.with_name(f"{target.stem}_{stamp}{target.suffix}")
    target.rename(kept)
    return f"kept the former one as {kept.name}"


@app.command()
def crosstalk(
    tests: Annotated[list[Path], typer.Argument(help="results folders of PSF01 tests, one per wavelength")],
    into: Annotated[Path, typer.Option(help="folder for tables, product and report")] = Path("crosstalk"),
    promote: Annotated[bool, typer.Option("--promote", help="make the product that of the block")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write HTML and PDF")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Join the cross-talk matrices of several wavelengths: weighted means, and the requirement judged on them.

    Electronic cross-talk has no colour. Pairs that differ between the tests by more than chance are named: what is
    seen there is light. Exit 1 when a victim is beyond the requirement, or was not measured.

    Example:  calcamp products crosstalk results_atCALDATA/D21/PSF01_590 results_atCALDATA/D21/PSF01_800
    """
    from calcamp.cli.joined import join_crosstalk
    from calcamp.config.yamlfile import edit_yaml

    found = []
    for test in tests:
        verdict = _verdict(test)
        product = _made(test, verdict, "crosstalk")[0]
        found.append(
            (verdict, test / product["file"], _unchanged("crosstalk", test / product["file"], product))
        )
    told = join_crosstalk(found, into, report)
    print(json.dumps(told, indent=1) if as_json else "\n".join(told["text"]))
    if promote:
        lines: list[str] = []
        block_path = _workspace_block(told["block"], Path.cwd())
        folder = (Path.cwd() / "calproducts" / "crosstalk").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        target = _place(Path(told["product"]), folder, lines)
        edit_yaml(block_path, {("products", "crosstalk"): _relative(target, block_path.parent)})
        print("\n".join([*lines, f"{block_path}: updated; sessions use {target}"]), file=sys.stderr)
    if not told["ok"]:
        raise typer.Exit(1)


@app.command()
def roetab(
    catalogue: Annotated[Path, typer.Argument(help="table with the columns CHANNELS (1E to 3H) and OBSID")],
    data: Annotated[Path, typer.Argument(help="folder of the raw frames")],
    block: Annotated[str, typer.Option(help="block whose electronics were on the bench")],
    into: Annotated[Path, typer.Option(help="folder for tables, product and report")] = Path("roetab"),
    label: Annotated[str, typer.Option(help="name of the run; that of the catalogue by default")] = "",
    detector: Annotated[str, typer.Option(help="format of the frames")] = "ccd273",
    against: Annotated[
        Path | None, typer.Option(help="crosstalk product of spots (FITS) to compare with")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write HTML and PDF")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Cross-talk matrix of a bench run: steps of charge injected into one channel at a time, all twelve read in step.

    Charge lies in the first 1600 columns of a channel, the others of each row are its background. Exit 1 when a victim
    is beyond the requirement, or was not measured.

    Example:  calcamp products roetab ROE_TAB_FM15.csv data/ROETAB --block NOSTROMO --against crosstalk/EUC_CROSSTALK_NOSTROMO.fits
    """
    from calcamp.cli.roetab import bench_crosstalk
    from calcamp.config.lookup import load_detector

    told = bench_crosstalk(
        catalogue, data, into, block, load_detector(detector, Path.cwd()), label=label, against=against,
        report=report, told=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    print(json.dumps(told, indent=1) if as_json else "\n".join(told["text"]))
    if not told["ok"]:
        raise typer.Exit(1)


@app.command()
def traps(
    tests: Annotated[
        list[Path], typer.Argument(help="results folders of trap-pumping tests: TP01, TP11, TP02, TP21")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="table to write, .fits or .ecsv; by default calproducts/traps/EUC_TRAPS_<block>.fits",
        ),
    ] = None,
    reference: Annotated[float, typer.Option(help="temperature that tau is stated at, in K")] = 153.0,
    activation: Annotated[
        float, typer.Option(help="energy level in eV that scales tau where there is one temperature")
    ] = 0.23,
    promote: Annotated[bool, typer.Option("--promote", help="name the table in the block's YAML")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Join the trap catalogues of several tests into one table for the block.

    A trap seen by several tests (modes, temperatures, injected levels) becomes one row: tau and Pc of each test,
    and the weighted tau at the reference temperature where they agree. Tests at temperatures 2 K or more apart
    also give the energy level of each trap.

    Example:  calcamp products traps results/D11/TP01 results/D12/TP11 results/D12/TP02
    """
    from calcamp.cli.traps import join

    joined = join(tests, reference, activation)
    target = output or Path("calproducts") / "traps" / f"EUC_TRAPS_{joined.block}.fits"
    block_path = _workspace_block(joined.block, Path.cwd()) if promote else None
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [_keep_former(target)] if target.is_file() else []
    joined.write(target)
    if block_path:
        from calcamp.config.yamlfile import edit_yaml

        edit_yaml(block_path, {("products", "traps"): _relative(target, block_path.parent)})
        lines.append(f"{block_path}: updated")
    summary = joined.summary()
    if as_json:
        print(json.dumps({"file": str(target), **summary}, indent=1))
        return
    for test in summary["tests"]:
        print(
            f"{test['number']:3d} {test['session']}/{test['test']}  {test['temperatures']}  {test['traps']} traps"
        )
    print("\n".join([*lines, f"{target}: {summary['words']}"]))


def _relative(target: Path, folder: Path) -> str:
    """Path as a block file names it: relative to the file."""
    import os

    return os.path.relpath(target.resolve(), folder.resolve())
