"""Who may use the server: a token, exchanged once for a cookie."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque

from edge_sdk.server.settings import RequestError

_SESSION_S = 12 * 3600.0
_MOST_SESSIONS = 256


class Access:
    """The token and the sessions of those who gave it.

    Parameters
    ----------
    token
        None: nobody needs one (loopback).
    failures_per_minute
        Logins that may fail before all logins have to wait.
    """

    def __init__(self, token: str | None, failures_per_minute: int) -> None:
        self.token = token
        self._digest = None if token is None else _digest(token)
        self._sessions: OrderedDict[str, float] = OrderedDict()  # digest of the cookie → end
        self._failures: deque[float] = deque(maxlen=failures_per_minute)
        self._lock = threading.Lock()

    @property
    def open_to_all(self) -> bool:
        """Whether no token is needed."""
        return self._digest is None

    def token_is_right(self, text: str) -> bool:
        """Compare in constant time."""
        return self._digest is not None and hmac.compare_digest(_digest(text), self._digest)

    def log_in(self, text: str) -> str:
        """Exchange the token for the value of a new cookie.

        Raises
        ------
        RequestError
            Wrong token (401), or too many wrong ones in the last minute (429).
        """
        now = time.monotonic()
        with self._lock:
            if len(self._failures) == self._failures.maxlen and now - self._failures[0] < 60:
                raise RequestError(429, "too many wrong tokens; wait a minute")
        if not self.token_is_right(text):
            with self._lock:
                self._failures.append(now)
            raise RequestError(401, "wrong token; it was printed when the server started")
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(cookie).hex()] = now + _SESSION_S
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return cookie

    def log_out(self, cookie: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(_digest(cookie).hex(), None)

    def session_is_valid(self, cookie: str) -> bool:
        """Whether a cookie belongs to a session that has not ended."""
        key = _digest(cookie).hex()
        with self._lock:
            end = self._sessions.get(key)
            if end is not None and end < time.monotonic():
                del self._sessions[key]
                end = None
        return end is not None


def _digest(text: str) -> bytes:
    """SHA-256: equal lengths for the comparison, and no plain secrets in memory."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
