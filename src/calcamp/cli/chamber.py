"""``calcamp chamber``: show or change a chamber profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="""Show or change a chamber profile: exposure times, focus, spot pattern, with history and a way back.

    \b
    Example:  calcamp chamber show B_NOSTROMO
              calcamp chamber set-focus B_NOSTROMO results_atCALDATA/D00/FOCUS00_800
              calcamp chamber set-flux B_NOSTROMO results_atCALDATA/D11/FLATFLUX00_800
              calcamp chamber set-pattern B_NOSTROMO results_atCALDATA/D00/FOCUS00_800
              calcamp chamber undo B_NOSTROMO
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str, typer.Argument(help="Chamber profile: a name, or the path of its YAML.", show_default=False)
]
Who = Annotated[
    str, typer.Option("--who", help="Who makes the change; by default your user name.", show_default=False)
]
Reason = Annotated[
    str, typer.Option("--reason", help="Why, in words; goes into the history.", show_default=False)
]
Force = Annotated[
    bool, typer.Option("--force", help="Accept a large change, or a result of another profile.")
]


@app.command()
def show(name: Name, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False):
    """Exposure times per wavelength and level, focus, and the history.

    \b
    Example:  calcamp chamber show B_NOSTROMO
    """
    from calcamp.campaign import profile
    from calcamp.config.lookup import load_chamber
    from calcamp.data.files import json_text

    chamber = load_chamber(name, Path.cwd())
    rows = profile.table(chamber)
    if as_json:
        history = [entry.model_dump() for entry in chamber.history]
        typer.echo(
            json_text({"chamber": chamber.chamber, "file": chamber.file, "slots": rows, "history": history}),
            nl=False,
        )
        return
    typer.echo(f"chamber {chamber.chamber}: {chamber.title}\n{chamber.file}\n")
    typer.echo("slot  wavelength  focus [mm]  FWHM [px]")
    for row in rows:
        fwhm = "-" if row["fwhm_px"] is None else f"{row['fwhm_px']:g}"
        typer.echo(f"{row['slot']:>4}  {_label(row['wavelength']):>10}  {row['mirror_mm']:>10g}  {fwhm:>9}")
    for source in ("flat", "point"):
        typer.echo(f"\nexposure times of the {source} source [s] at per cent of saturation")
        typer.echo("wavelength" + "".join(f"{level:>10}" for level in profile.LEVELS))
        for row in rows:
            if row[source]:
                times = "".join(f"{time:>10.5g}" for time in row[source].values())
                typer.echo(f"{_label(row['wavelength']):>10}{times}")
    typer.echo(f"\nspot pattern {chamber.pattern or 'none'}, shutter table {chamber.shutter or 'none'}")
    for entry in chamber.history:
        by = f" by {entry.who}" if entry.who else ""
        typer.echo(f"  {entry.when}{by}: {entry.what}" + (f" ({entry.source})" if entry.source else ""))


def _label(wavelength: int) -> str:
    return {0: "ND", 2000: "open"}.get(wavelength, f"{wavelength} nm")


@app.command("set-focus")
def set_focus(
    name: Name,
    value: Annotated[
        str,
        typer.Argument(
            help="Focus in mm, or a result of FOCUS00 or PSF01 (folder or verdict.json).", show_default=False
        ),
    ],
    wavelength: Annotated[
        int | None,
        typer.Option(
            "--wavelength", help="Only at this wavelength, nm; by default at all.", show_default=False
        ),
    ] = None,
    who: Who = "",
    reason: Reason = "",
    force: Force = False,
):
    """Put a new focus into the workspace's profile.

    \b
    Example:  calcamp chamber set-focus B_NOSTROMO 47.21 --reason "focus of D00"
    """
    from calcamp.campaign import profile

    new = profile.measured(value, "best_focus", ("FOCUS00", "PSF01"), "mm")
    _tell(
        profile.set_focus(name, new, Path.cwd(), wavelength=wavelength, who=who, reason=reason, force=force)
    )


@app.command("set-flux")
def set_flux(
    name: Name,
    value: Annotated[
        str,
        typer.Argument(
            help="Saturation time in s, or a result of FLATFLUX00 or PSFLUX00 (folder or verdict.json).",
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option("--source", help="flat or point; a result says it itself.", show_default=False),
    ] = None,
    wavelength: Annotated[
        int | None,
        typer.Option("--wavelength", help="Wavelength, nm; a result says it itself.", show_default=False),
    ] = None,
    who: Who = "",
    reason: Reason = "",
    force: Force = False,
):
    """Put a new saturation time into the workspace's profile.

    \b
    Example:  calcamp chamber set-flux B_NOSTROMO results_atCALDATA/D11/FLATFLUX00_800
              calcamp chamber set-flux B_NOSTROMO 3.62 --source flat --wavelength 800
    """
    from calcamp.campaign import profile
    from calcamp.campaign.core import find_test
    from calcamp.data.files import InputError

    new = profile.measured(value, "saturation_time", ("FLATFLUX00", "PSFLUX00"), "s")
    if new.test:
        test = find_test(new.test.split(".")[0])
        source, wavelength = "flat" if test.handle == "FLATFLUX00" else "point", test.wavelength
    if source not in ("flat", "point"):
        raise InputError("the source is not given", where="--source", expected="flat or point")
    if wavelength is None:
        raise InputError("the wavelength is not given", where="--wavelength", expected="nm, such as 800")
    made = profile.set_flux(
        name, new, Path.cwd(), source=source, wavelength=wavelength, who=who, reason=reason, force=force
    )
    _tell(made)


@app.command("set-pattern")
def set_pattern(
    name: Name,
    result: Annotated[
        Path,
        typer.Argument(
            help="Result of a test with a star lock: FOCUS00, PSFLUX00, PSF01, PSF02 (folder or verdict.json).",
            show_default=False,
        ),
    ],
    pattern: Annotated[
        str,
        typer.Option(
            "--name", help="Name of the new pattern; by default profile_session_test.", show_default=False
        ),
    ] = "",
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Although stars were not seen: the transform places them."),
    ] = False,
    who: Who = "",
    reason: Reason = "",
    force: Force = False,
):
    """Make the places that a star lock found the chamber's spot pattern.

    The new pattern gets a file of its own, with its history; the former one stays, and undo names it again.

    \b
    Example:  calcamp chamber set-pattern B_NOSTROMO results_atCALDATA/D00/FOCUS00_800
    """
    import re

    from calcamp.campaign import profile
    from calcamp.config.lookup import load_chamber
    from calcamp.config.shape import NAME_PATTERN
    from calcamp.data.files import InputError
    from calcamp.data.tables import table_rows

    table = profile.stars_of(result)
    found = profile.found_pattern(table, table_rows(table))
    folder = result if result.is_dir() else result.parent
    chosen = (
        pattern or f"{load_chamber(name, Path.cwd()).chamber}_{folder.resolve().parent.name}_{folder.name}"
    )
    if not re.fullmatch(NAME_PATTERN, chosen):
        raise InputError(
            f"{chosen!r} is no name", where="--name", expected="letters, digits, _ . -, at most 64"
        )
    made = profile.set_pattern(
        name,
        found,
        Path.cwd(),
        pattern=chosen,
        allow_missing=allow_missing,
        who=who,
        reason=reason,
        force=force,
    )
    _tell(made)


@app.command()
def undo(name: Name, who: Who = "", reason: Reason = ""):
    """Take back the last change.

    \b
    Example:  calcamp chamber undo B_NOSTROMO --reason "wrong chamber"
    """
    from calcamp.campaign import profile

    _tell(profile.undo(name, Path.cwd(), who, reason))


def _tell(change) -> None:
    typer.echo(f"{change.file}")
    if not change.values:
        typer.echo("  nothing to change: the profile holds these values already")
        return
    for line in change.lines():
        typer.echo(f"  {line}")
    typer.echo(f"  source: {change.source}")
    typer.echo("write the scripts anew; --diff with the old folder shows what changes in them")
