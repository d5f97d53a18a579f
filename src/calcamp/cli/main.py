"""The ``calcamp`` command: a list of names, each command in a module of its own, loaded when used.

A command module ``cli/<name with - as _>.py`` exports ``app``, a ``typer.Typer`` (with one command,
or with sub-commands).
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

#: Command names in the order of a campaign, with the line shown by ``calcamp --help``.
COMMANDS = {
    "init": "make a workspace for a block",
    "validate": "check a session, block, chamber, limits file or workspace, and say what would run",
    "scripts": "write acquisition scripts",
    "sessions": "build and deliver session folders",
    "simulate": "make the data of a session",
    "run": "run a session (snakemake with the profile found)",
    "status": "where a session stands",
    "stop": "end a running session early, cleanly",
    "obsids": "put the OBSID limits found into a session YAML",
    "verify": "re-hash inputs and products, find what is missing",
    "monitor": "watch an acquisition: house-keeping, images, warnings, back-up",
    "verify-backup": "compare both sides of a back-up",
    "ds9": "send images to DS9",
    "hk-report": "house-keeping plots of a period as PDF",
    "quicklook": "quick-look report of a day-folder",
    "show": "any product or table in words and a plot",
    "record": "fill the test record workbook",
    "chamber": "show or change a chamber profile",
    "products": "list, promote or join calibration products",
    "clean": "free the space of prepared images, figures or logs",
    "merge-reports": "one PDF of many reports",
    "merge-logs": "one EXP-LOG of many",
    "mask": "make cosmetics masks without a session",
    "stars": "find a first pattern of point sources",
    "schema": "write the JSON schemas of the YAML files",
}


HELP = """Usage: calcamp COMMAND [OPTIONS]

  Calibration of CCD blocks: from acquisition scripts to signed reports.

  Example:  calcamp validate config/sessions/D11.yaml
            snakemake -n --configfile config/sessions/D11.yaml

  Every command has --help (-h) with an example.

Commands:
"""


def available() -> list[str]:
    """Commands of this version, in the order of a campaign."""
    return [name for name in COMMANDS if find_spec(f"calcamp.cli.{name.replace('-', '_')}")]


def call(name: str, arguments: list[str]) -> None:
    """Run one command; it is imported only now, so ``calcamp --help`` stays quick."""
    import typer

    module = importlib.import_module(f"calcamp.cli.{name.replace('-', '_')}")
    # The command handles its own usage errors (exit 2) and exits; only other exceptions come back here.
    command = typer.main.get_command(module.app)
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    command.main(args=arguments, prog_name=f"calcamp {name}")


def main() -> None:
    """Entry point. Bad input ends with exit 2 and a message, never a traceback."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP + "\n".join(f"  {name:14s} {COMMANDS[name]}" for name in available()))
        sys.exit(0)
    if arguments[0] == "--version":
        from calcamp import __version__

        print(f"calcamp {__version__}")
        sys.exit(0)
    name = arguments[0]
    if name not in available():
        from calcamp.config.errors import likely

        close = likely(name, available(), 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        print(f"calcamp: there is no command {name!r}.{hint} See 'calcamp --help'.", file=sys.stderr)
        sys.exit(2)
    try:
        call(name, arguments[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Errors of the user's input carry `is_input_error`; anything else is a fault of ours and shows itself.
        if getattr(error, "is_input_error", False):
            print(f"calcamp: {error}", file=sys.stderr)
            sys.exit(2)
        raise
