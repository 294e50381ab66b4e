"""``stetho verify``: files and signature of a bundle, and its golden vectors on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.messages import emit_json, error_line
from edge_sdk.cli.options import JsonOption


def verify_command(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or 'default'.", metavar="BUNDLE")] = "default",
    trusted_key: Annotated[
        list[Path] | None,
        typer.Option("--trusted-key", help="Public key that must have signed it (else STETHO_TRUSTED_KEYS)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check signature, version, hashes and golden vectors of a bundle on this machine."""
    from edge_sdk.runtime.bundle.load import verify_bundle

    checks = verify_bundle(bundle, trusted_key or None)
    for check in checks:
        if json:
            emit_json({"type": "check", "name": check.name, "ok": check.ok, "detail": check.detail})
        else:
            typer.echo(f"{'✓' if check.ok else '✗'} {check.name}: {check.detail}")
    failed = [check for check in checks if not check.ok]
    if json:
        emit_json({"type": "summary", "bundle": bundle, "ok": not failed, "checks": len(checks), "failed": len(failed)})
    if failed:
        error_line(f"{len(failed)} of {len(checks)} checks failed, first {failed[0].name}: {failed[0].detail}")
        raise typer.Exit(1)
