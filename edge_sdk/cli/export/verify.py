"""``stetho verify``: files, signature and golden vectors of a bundle on this machine; the chain of an audit log."""

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
    audit: Annotated[
        Path | None, typer.Option("--audit", help="Check an audit log instead of a bundle.", metavar="FILE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check signature, version, hashes and golden vectors of a bundle on this machine; or the chain of an audit log."""
    if audit is not None:
        _verify_audit(audit, json=json)
        return
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


def _verify_audit(path: Path, *, json: bool) -> None:
    from edge_sdk.audit import verify_audit

    state = verify_audit(path)
    ok = state.broken_line is None
    if json:
        plain = {name: getattr(state, name) for name in state.__slots__}
        emit_json({"type": "audit", "file": str(path), "ok": ok, **plain})
    elif ok:
        repaired = f", {state.repaired} of them state that a cut line was taken off" if state.repaired else ""
        typer.echo(f"✓ {path}: {state.entries} entries in an unbroken chain{repaired}; last hash {state.head}")
    if not ok:
        error_line(f"{path}: line {state.broken_line} {state.problem}; the {state.entries} before it are unbroken")
        raise typer.Exit(1)
