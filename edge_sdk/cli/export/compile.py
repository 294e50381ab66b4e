"""``stetho compile``: a TensorRT engine of a bundle, built on this device and kept in the user's cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.schema import ArtefactEntry
    from export.tensorrt.builder import EngineFile
    from export.tensorrt.proof import EngineProof


def compile_command(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or 'default'.", metavar="BUNDLE")] = "default",
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, fp16 or int8 (default: fp16 if the bundle has it).")
    ] = None,
    flavour: Annotated[
        str, typer.Option("--flavour", help="tensorrt or tensorrt-rtx (default: the one installed).")
    ] = "auto",
    ahead: Annotated[
        str | None,
        typer.Option("--for", help="RTX: build for these compute capabilities without a GPU.", metavar="8.6,8.9"),
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", help="Profiles: lowest-best-highest batch, comma-separated.", metavar="PROFILES")
    ] = "1-1-1,1-8-64",
    workspace: Annotated[
        int | None, typer.Option("--workspace", min=16, help="Limit of scratch memory in MB (default: the GPU's own).")
    ] = None,
    hardware_compatible: Annotated[
        str | None, typer.Option("--hardware-compatible", help="ampere or same: runs on other GPUs too, slower.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Runs on later TensorRT too, slower.")
    ] = False,
    dla: Annotated[int | None, typer.Option("--dla", min=0, help="DLA core (Jetson Xavier, Orin; CNNs, fp16).")] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the engine for equal boards that trust the key's .pub."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the cache has it.")] = False,
    json: JsonOption = False,
) -> None:
    """Build a TensorRT engine for this device, or with --for ahead of time for RTX GPUs."""
    from edge_sdk.errors import ExportError
    from edge_sdk.extras import require_extra
    from edge_sdk.runtime.bundle.load import resolve_bundle

    require_extra("tensorrt-rtx" if flavour == "tensorrt-rtx" else "tensorrt", "stetho compile", "onnx")
    from export.tensorrt.builder import compile_bundle
    from export.tensorrt.options import BuildOptions
    from export.tensorrt.proof import prove_engine

    if hardware_compatible not in (None, "ampere", "same"):
        raise ExportError(f"--hardware-compatible {hardware_compatible!r} is neither ampere nor same")
    options = BuildOptions(
        flavour=flavour,
        profiles=parse_profiles(batch),
        workspace_mb=workspace,
        capabilities=_capabilities(ahead),
        hardware_compatible=hardware_compatible or "",
        version_compatible=version_compatible,
        dla_core=dla,
        force=force,
    )
    folder = resolve_bundle(bundle)
    with progress_bar("compiling", quiet=json) as report:
        entry, engine = compile_bundle(folder, precision, options, progress=report, sign=sign)
    proof = prove_engine(folder, entry, engine.path, ahead_of_time=bool(options.capabilities))
    _print(bundle, entry, engine, proof, json_=json)
    if proof.ok is False:
        raise typer.Exit(1)


def parse_profiles(text: str) -> tuple[tuple[int, int, int], ...]:
    """``"1-1-1,1-8-64"`` as triples; raises ``ExportError``."""
    from edge_sdk.errors import ExportError

    profiles = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)-(\d+)-(\d+)\s*", part)
        if match is None:
            raise ExportError(f"--batch {text!r}: give lowest-best-highest, for example 1-1-1,1-8-64")
        low, best, high = map(int, match.groups())
        if not 1 <= low <= best <= high <= 4096:
            raise ExportError(f"--batch {part.strip()}: needs 1 <= lowest <= best <= highest <= 4096")
        profiles.append((low, best, high))
    return tuple(profiles)


def _capabilities(text: str | None) -> tuple[str, ...]:
    from edge_sdk.errors import ExportError

    found = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    for capability in found:
        if not re.fullmatch(r"\d+\.\d", capability):
            raise ExportError(f"--for {capability!r} is not a compute capability; give for example 8.6")
    return found


def _print(bundle: str, entry: ArtefactEntry, engine: EngineFile, proof: EngineProof, *, json_: bool) -> None:
    key: dict[str, Any] = engine.sidecar["key"]
    if json_:
        kept = {k: key[k] for k in ("flavour", "version", "gpu", "capability", "driver", "precision", "profiles")}
        emit_json(
            {
                "type": "engine", "bundle": bundle, "artefact": entry.format, **kept, "options": key["options"],
                "path": engine.path, "bytes": engine.bytes, "seconds": round(engine.seconds, 2),
                "cached": engine.cached, "proven": proof.ok, "detail": proof.detail,
            }
        )  # fmt: skip
        return
    how = "from the cache" if engine.cached else f"built in {engine.seconds:.1f} s"
    where = f"compute capability {key['capability']}" if key["gpu"] == "any" else f"{key['gpu']}"
    typer.echo(
        f"{entry.format} → {key['flavour']} {key['version']}, {key['precision']}, for {where}: "
        f"{engine.bytes / 1e6:.1f} MB, {how}"
    )
    typer.echo(f"{engine.path}")
    typer.echo(f"{'✓' if proof.ok else '–' if proof.ok is None else '✗'} {proof.detail}")
