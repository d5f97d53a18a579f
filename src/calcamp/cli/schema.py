"""``calcamp schema``: write the JSON schemas of the YAML files, for editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def schema(
    into: Annotated[
        Path | None, typer.Option(help="Folder for the schemas; default: config/schema of calcamp.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a schema is missing or stale.")
    ] = False,
    docs: Annotated[
        Path | None, typer.Option(help="Also write the reference of all keys to this file (Markdown).")
    ] = None,
) -> None:
    """Write the JSON schemas of session, block, chamber, limits and detector files.

    Editors use them to complete and check a file while it is typed.

    Example:  calcamp schema --into config/schema
              calcamp schema --check
    """
    from calcamp.config import schema as source
    from calcamp.data.files import write_atomic
    from calcamp.paths import packaged_config

    into = into or packaged_config() / "schema"
    if check:
        old = source.stale(into)
        page_is_old = docs is not None and (
            not docs.is_file() or docs.read_text(encoding="utf-8") != source.reference()
        )
        for name in old:
            print(f"{into / name}.json: missing or stale; write it with 'calcamp schema'", file=sys.stderr)
        if page_is_old:
            print(f"{docs}: missing or stale; write it with 'calcamp schema --docs {docs}'", file=sys.stderr)
        if old or page_is_old:
            raise typer.Exit(1)
        print(f"{len(source.models())} schemas in {into} are up to date")
        return
    into.mkdir(parents=True, exist_ok=True)
    for name, text in ((name, source.schema_text(data)) for name, data in source.schemas().items()):
        write_atomic(into / f"{name}.json", text)
    if docs is not None:
        docs.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(docs, source.reference())
    print(f"wrote {len(source.models())} schemas to {into}" + (f" and {docs}" if docs else ""))
