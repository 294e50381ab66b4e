"""JSON lines: values that JSON can represent, one object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """Replace what JSON cannot represent: NaN and infinities by null, numpy values by numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def json_line(record: Mapping[str, Any]) -> str:
    """Encode one object as a line, line end included."""
    return json.dumps(jsonable(record), ensure_ascii=False, allow_nan=False) + "\n"
