"""Limits of the server, and the codes that stand for patients and reviewers."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from msgspec import Meta

from edge_sdk.errors import StethoError
from edge_sdk.settings import Count, Positive, Settings


class RequestError(StethoError):
    """A request that cannot be served; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerLimits(Settings, frozen=True):
    """Bounds on what clients may take of this machine."""

    title: ClassVar[str] = "limits"

    upload_mb: Positive = 256.0  # bytes of one uploaded file, MiB
    recording_s: Positive = 3600.0  # length of one recording
    channels: Count = 8  # of an uploaded file
    uploads_waiting: Count = 200
    uploads_per_minute: Count = 240
    body_kb: Positive = 64.0  # of any other request
    slowest_body_bps: Positive = 2000.0  # bytes a second of a request's body, after the first ``patience_s``
    patience_s: Positive = 10.0  # to send the head of a request, or the first message of a stream
    idle_s: Positive = 60.0  # without audio on a stream
    connections: Count = 400
    streams: Count = 96
    viewers: Count = 32  # of the live page
    logins_per_minute: Count = 10  # that fail
    longest_gap_s: Positive = 600.0  # that the numbers of a stream's frames may state
    outbox: Count = 256  # messages that may wait for a client before it is dropped
    stream_queue_s: Annotated[float, Meta(gt=0, le=30)] = 2.0  # audio of one stream that may wait for its turn


_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


def patient_code(text: str) -> str:
    """A patient's code: letters, digits and ``. _ -``, at least one digit; so that no name fits by accident.

    Raises
    ------
    RequestError
        It is anything else.
    """
    if _CODE.fullmatch(text) and any(letter.isdigit() for letter in text):
        return text
    raise RequestError(
        422, "the patient is given by a code, never by a name: 1 to 32 letters, digits, '.', '_' or '-', with a digit"
    )


def reviewer_code(text: str) -> str:
    """A reviewer's short name or initials.

    Raises
    ------
    RequestError
        It is empty or anything but letters, digits and ``. _ -``.
    """
    if _CODE.fullmatch(text):
        return text
    raise RequestError(422, "who reviews is 1 to 32 letters, digits, '.', '_' or '-', for example initials")
