"""``stetho keys``: make a signing key, sign a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption

app = typer.Typer(
    help="Make a key and sign bundles with it; devices check with --trusted-key.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("new")
def new_command(
    file: Annotated[
        Path, typer.Argument(help="Private key to write; the public one goes to FILE.pub.", metavar="FILE")
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the key in messages.")] = None,
    json: JsonOption = False,
) -> None:
    """Make an ed25519 key pair. Keep FILE secret; put FILE.pub on the devices."""
    from export.signing import make_key

    key = make_key(file, name)
    if json:
        emit_json({"type": "key", "name": key.name, "key_id": key.key_id, "private": file, "public": f"{file}.pub"})
    else:
        typer.echo(f"key {key.name} {key.key_id}: {file} (keep it secret), {file}.pub (for STETHO_TRUSTED_KEYS)")


@app.command("sign")
def sign_command(
    bundle: Annotated[str, typer.Argument(help="Bundle directory.", metavar="BUNDLE")],
    key: Annotated[Path, typer.Option("--key", help="Private key of 'stetho keys new'.", metavar="FILE")],
    json: JsonOption = False,
) -> None:
    """Sign a bundle after its files were checked against their hashes."""
    from edge_sdk.runtime.bundle.load import resolve_bundle
    from export.signing import sign_bundle

    folder = resolve_bundle(bundle)
    signer = sign_bundle(folder, key)
    if json:
        emit_json({"type": "signature", "bundle": folder, "name": signer.name, "key_id": signer.key_id})
    else:
        typer.echo(f"{folder} is signed by {signer.name} {signer.key_id}")
