"""JSON lines: values that JSON can represent, one object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def readable(text: str) -> str:
    r"""Replace the bytes of a file name that are not UTF-8 by ``\xNN``; any other text stays as it is."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    try:
        content = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a pair that is no byte
        content = text.encode(errors="backslashreplace")
    return content.decode(errors="backslashreplace")


def jsonable(value: Any) -> Any:
    """Replace what JSON cannot represent: NaN and infinities by null, numpy values by numbers and lists."""
    if isinstance(value, Mapping):
        return {readable(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return readable(str(value))
    if isinstance(value, str):
        return readable(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def json_line(record: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Encode one object as a line, line end included."""
    return json.dumps(jsonable(record), ensure_ascii=ascii_only, allow_nan=False) + "\n"
