"""`hypersigma-data audit`: the proof that no place and no picture is in two splits."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.output import (
    JsonOption,
    StoreArgument,
    complain,
    out,
    print_facts,
    said_in_words,
    say,
)


def audit(
    location: StoreArgument,
    version: Annotated[str | None, typer.Option(help="A tag; the current version if none.")] = None,
    as_json: JsonOption = False,
    file: Annotated[
        Path | None, typer.Option("--out", help="Also write the certificate, as JSON.")
    ] = None,
) -> None:
    """Prove from a version's index that no place and no picture is in two splits.

    Exit code 1 on a breach, which is told in words; no pixel is read.
    """
    with said_in_words():
        from pipeline.audit.proof import audit as proof

        certificate = proof(location, version)
        if file:
            file.write_text(certificate.to_json() + "\n", encoding="utf-8")
        if as_json:
            out.file.write(certificate.to_json() + "\n")
        else:
            print_facts(certificate.facts())
            for warning in certificate.warnings:
                say(f"note: {warning}")
            for breach in certificate.breaches:
                complain(f"breach: {breach}")
            say("no leak between splits" if certificate.passed else "NOT clean: see the breaches")
        raise typer.Exit(0 if certificate.passed else 1)
