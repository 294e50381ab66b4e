"""The Python API of TensorRT releases, read from their binding wheels without TensorRT.

The wheels (1 MB each, without the libraries) are imported over stubs of the C functions that they look for. Their API
is kept as a table: ``python -m tests.support.gpu.bindings FOLDER``. The tables are committed, for the wheels are not
ours; a long test reads the wheels again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RELEASES = {  # JetPack or use → wheel
    "8.6": "tensorrt-bindings==8.6.1",
    "10.0": "tensorrt-cu12-bindings==10.0.1",
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.13": "tensorrt-cu13-bindings==10.13.3.9",
    "10.16": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
_OURS = re.compile(r"^(I?[A-Z]\w+)$")
_PRINTER = """
import importlib, inspect, json, re, sys
t = importlib.import_module(sys.argv[1])
table = {}
for name in dir(t):
    o = getattr(t, name)
    if not isinstance(o, type) or not getattr(o, '__module__', '').startswith(('tensorrt', 'builtins')):
        continue
    members = {}
    for m in dir(o):
        if m.startswith('__') and m != '__init__':
            continue
        doc = getattr(getattr(o, m, None), '__doc__', '') or ''
        found = re.findall(r'(?:^|\\n)\\s*(?:\\d+\\. )?' + re.escape(m) + r'\\((.*)\\) -> ', doc)
        members[m] = [[a.split(':')[0].strip() + ('=' if '=' in a else '')
                       for a in re.split(r', (?=\\w+: |\\*)', f) if a.split(':')[0].strip()] for f in found]
        members[m] = [', '.join(a) for a in members[m]]
    table[name] = members
print(json.dumps({'version': t.__version__, 'names': sorted(dir(t)), 'api': table}))
"""


def api_of(module: str, path: Path | None = None, stubs: Path | None = None) -> dict[str, Any]:
    """Version, names and classes of a module: class → member → argument names of each overload."""
    environment = {"PATH": "/usr/bin:/bin"}
    if stubs is not None:
        environment["LD_LIBRARY_PATH"] = str(stubs)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-c", _PRINTER, module], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} at {path} cannot be imported: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def read_release(requirement: str, folder: Path) -> dict[str, Any]:
    """Download a wheel of bindings, import it over stubs, and return its API."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder),
         requirement],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / "x")], check=True)
    return api_of("tensorrt_bindings", folder / "x", make_stubs(folder / "x/tensorrt_bindings/tensorrt.so", folder))


def make_stubs(library: Path, folder: Path) -> Path:
    """Shared objects under the names that a library needs, with every function that nobody else defines."""
    needed = re.findall(
        r"\[(libnv\S+?)\]",
        subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout,
    )
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    names = [s for s in re.findall(r"\bU (\S+)", symbols) if "@" not in s and not s.startswith("Py") and s[:3] != "_Py"]
    source = folder / "stub.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in names))
    for place, name in enumerate(needed):
        content = source if place == 0 else Path("/dev/null")
        subprocess.run(
            ["gcc", "-w", "-shared", "-fPIC", "-x", "c", str(content), "-o", str(folder / name), f"-Wl,-soname,{name}"],
            check=True,
        )
    return folder


def kept(api: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The classes of a table that the SDK uses, and the module's own names among ``names``."""
    classes = {
        name: {member: overloads or "" for member, overloads in members.items()}
        for name, members in sorted(api["api"].items())
        if name in names
    }
    return {"version": api["version"], "names": [n for n in api["names"] if _OURS.match(n)], "api": classes}


def main(out: Path) -> None:
    """Write a table for every release, and for TensorRT-RTX as it is installed."""
    from tests.export.tensorrt.contract import CLASSES

    for release, requirement in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            table = kept(read_release(requirement, Path(folder)), CLASSES)
        write_table(out / f"{release}.json", table)
    write_table(out / "rtx.json", kept(api_of("tensorrt_rtx"), CLASSES))


def write_table(path: Path, table: dict[str, Any]) -> None:
    """Write a table with a line for each class."""
    classes = ",\n".join(f" {json.dumps(name)}: {json.dumps(members)}" for name, members in table["api"].items())
    head = f'"version": {json.dumps(table["version"])},\n"names": {json.dumps(table["names"])}'
    path.write_text(f'{{{head},\n"api": {{\n{classes}\n}}}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
