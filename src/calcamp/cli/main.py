"""The ``calcamp`` command: a list of names, each command in a module of its own, loaded when used.

A command module ``cli/<name with - as _>.py`` exports ``app``, a ``typer.Typer`` (with one command,
or with sub-commands).
"""

from __future__ import annotations

import sys

import click

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


class LazyGroup(click.Group):
    """Commands are imported when they are called, so ``calcamp --help`` stays quick."""

    def _available(self):
        from importlib.util import find_spec

        return [name for name in COMMANDS if find_spec(f"calcamp.cli.{name.replace('-', '_')}")]

    def list_commands(self, ctx):
        return self._available()

    def get_command(self, ctx, name):
        import importlib

        if name not in COMMANDS or name not in self._available():
            return None
        import typer

        module = importlib.import_module(f"calcamp.cli.{name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = name
        return command

    def resolve_command(self, ctx, args):
        import difflib

        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = difflib.get_close_matches(name, self._available(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"There is no command {name!r}.{hint} See 'calcamp --help'.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self._available()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="calcamp", message="%(prog)s %(version)s")
def cli():
    """Calibration of CCD blocks: from acquisition scripts to signed reports.

    \b
    Example:  calcamp validate config/sessions/D11.yaml
              snakemake -n --configfile config/sessions/D11.yaml
    """


def main() -> None:
    """Entry point. Bad input ends with exit 2 and a message, never a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        print("stopped", file=sys.stderr)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Errors of the user's input carry `is_input_error`; anything else is a fault of ours and shows itself.
        if getattr(error, "is_input_error", False):
            print(f"calcamp: {error}", file=sys.stderr)
            sys.exit(2)
        raise
