"""The time as it is written down: RFC 3339 in UTC; it owns no timer."""

from __future__ import annotations

import time
from datetime import datetime

__all__ = ["format_time", "now", "parse_time"]


def format_time(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 with milliseconds."""
    whole = int(seconds // 1)
    parts = time.gmtime(whole)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', parts)}.{int((seconds - whole) * 1000):03d}Z"


def now() -> str:
    """The present time."""
    return format_time(time.time())


def parse_time(text: str) -> float:
    """Seconds since the epoch of what `format_time` wrote. ValueError for anything else."""
    return datetime.fromisoformat(text).timestamp()
