"""Reports YAML: which reports of a block are bound into one document, in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from calcamp.config.shape import File


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, Field(max_length=200)]
Heading = Annotated[str, Field(min_length=1, max_length=80)]


class Reports(File):
    """The document of a block: its sessions and tests in parts."""

    block: Text = Field(description="the block, for the title")
    programme: Text | None = Field(None, description="QM, FQM or FM")
    reference: Text | None = Field(None, description="reference of the document")
    issue: Annotated[Text, BeforeValidator(_as_text)] = Field("1.0", description="issue of the document")
    title: Text | None = Field(None, description="title; 'Test Reports, <block>' by default")
    output: Text | None = Field(None, description="the PDF, relative to this file")
    parts: dict[Heading, Annotated[list[Text], Field(min_length=1)]] = Field(
        min_length=1,
        description="heading of a part: results of sessions or of single tests, relative to this file, in order",
    )

    def folders(self) -> dict[str, list[Path]]:
        """Parts with the folders that they name."""
        return {name: [self.path_to(text) for text in texts] for name, texts in self.parts.items()}
