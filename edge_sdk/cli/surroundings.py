"""What the command line needs around it: streams that print any character, a user with a name, calm libraries."""

from __future__ import annotations

import codecs
import os
import sys

READABLE = "stetho-readable"
"""Name of the error handler: what the stream cannot encode becomes a plain character, an undecodable byte ``\\xNN``."""

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables from which OpenBLAS takes the number of its threads, the first that is set."""

_RARELY = (20_000, 20, 20)  # loading modules makes objects that stay: the default of 700 searches them in vain 80 times

_PLAIN = {
    "✓": "+", "✗": "x", "–": "-", "—": "-", "−": "-", "‑": "-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "≈": "~",
    "±": "+-", "×": "x", "·": ".", "…": "...", "∞": "inf", "²": "2", "³": "3", "µ": "u", "μ": "u", "’": "'", "‘": "'",
    "“": '"', "”": '"', "°": "deg",
}  # fmt: skip


def prepare_streams() -> None:
    """Open closed descriptors 0 to 2 on the null device, and let stdout and stderr print any text.

    A closed descriptor would be given to the next file that is opened, and whatever prints would write into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error(READABLE, _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=READABLE)


def name_user() -> None:
    """Give a user id without an account a name in the environment: torch fails where it looks for one in vain."""
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and hasattr(os, "getuid"):
        import pwd

        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"


def calm_libraries() -> None:
    """Set up numpy and the garbage collector for a command that lives on a device; before numpy is loaded.

    The threads of numpy's OpenBLAS spin for 20 ms after every matrix product that they share, on every core but one:
    many times what the product of one breath costs. What the user has set stays.
    """
    import gc

    if not any(os.environ.get(name) for name in BLAS_THREADS):
        os.environ[BLAS_THREADS[0]] = "1"
    gc.set_threshold(*_RARELY)


def spare_loaded() -> None:
    """Keep what is loaded out of every later search for garbage; for a process that is the command, as it begins.

    Modules, classes and functions stay to the end of the process, where the interpreter would search and free them all
    in vain: almost a tenth of the CPU time of a short command. What the command makes itself is collected as before.
    """
    import gc

    gc.freeze()


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    if character in _PLAIN:
        return _PLAIN[character]
    from unicodedata import normalize

    return normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
