"""Where an MQTT broker is and how to log in: a URL without secrets, and secrets from the environment or from files."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from edge_sdk.errors import StethoError

PORTS = {"mqtt": 1883, "mqtts": 8883}
DISCOVERY = "homeassistant"
TOPIC = "stetho"
FORM = "mqtt[s]://[USER@]HOST[:PORT][/TOPIC][?discovery=PREFIX|off]"

USER, PASSWORD, PASSWORD_FILE = "STETHO_MQTT_USER", "STETHO_MQTT_PASSWORD", "STETHO_MQTT_PASSWORD_FILE"
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "STETHO_MQTT_CA_FILE", "STETHO_MQTT_CERT_FILE", "STETHO_MQTT_KEY_FILE"
"""Environment variables: login; the authority that signed the broker's certificate; a certificate of this client."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and where to publish on it."""

    host: str
    port: int
    topic: str = TOPIC  # above those of the devices
    discovery: str | None = DISCOVERY  # topic of Home Assistant's discovery; None: off
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        """Host and port for messages."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def read_broker(url: str, environment: Mapping[str, str] = os.environ, *, password_file: Path | None = None) -> Broker:
    """Read the URL of a broker and the login from the environment.

    Parameters
    ----------
    url
        ``mqtt[s]://[USER@]HOST[:PORT][/TOPIC][?discovery=PREFIX|off]``; ``mqtts`` is TLS with a verified certificate.
    environment
        Of the process.
    password_file
        Holds the password alone; used before those of the environment.

    Raises
    ------
    StethoError
        The URL has another form or holds a password, or a file cannot be read.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise StethoError(f"{_shown(url)!r} is not the URL of a broker; write {FORM}")
    if parts.password is not None:
        raise StethoError(
            "a password in a URL can be read by every user of this machine; "
            f"set {PASSWORD}, or write it into a file and name that in {PASSWORD_FILE} or --mqtt-password-file"
        )
    host, port = _host_and_port(url)
    topic = unquote(parts.path).strip("/") or TOPIC
    if re.search(r"[+#\x00]", topic):
        raise StethoError(f"topic {topic!r} holds a wildcard; name one topic")
    user = unquote(parts.username) if parts.username else environment.get(USER) or None
    password = _password(environment, password_file)
    if password is not None and user is None:
        raise StethoError(f"a password needs a user: write {parts.scheme}://USER@{parts.netloc} or set {USER}")
    tls = _tls(environment) if parts.scheme == "mqtts" else None
    return Broker(host, port, topic, _discovery(parts.query), user, password, tls)


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        host.encode("idna")
    except ValueError:
        host, port = "", 0
    if not host:
        raise StethoError(f"{_shown(url)!r} names no host, or a port that is none; write {FORM}")
    return host, port


def _discovery(query: str) -> str | None:
    given = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(given) - {"discovery"}):
        raise StethoError(f"unknown option {unknown[0]!r} in the URL of the broker; write {FORM}")
    prefix = given.get("discovery", [DISCOVERY])[-1].strip("/")
    if re.search(r"[+#\x00]", prefix):
        raise StethoError(f"discovery prefix {prefix!r} holds a wildcard; name one topic")
    return None if prefix in ("", "off") else prefix


def _password(environment: Mapping[str, str], file: Path | None) -> str | None:
    if file is None and environment.get(PASSWORD):
        return environment[PASSWORD]
    if file is None and not environment.get(PASSWORD_FILE):
        return None
    path = file or Path(environment[PASSWORD_FILE])
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StethoError(f"cannot read the password of the broker from {path}: {error}") from None


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    authority, certificate = environment.get(CA_FILE) or None, environment.get(CERTIFICATE_FILE) or None
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise StethoError(f"{CA_FILE}={authority} is not a file of certificates: {error}") from None
    if certificate:
        try:
            context.load_cert_chain(certificate, environment.get(KEY_FILE) or None)
        except (OSError, ssl.SSLError) as error:
            raise StethoError(f"{CERTIFICATE_FILE}={certificate} or {KEY_FILE} cannot be used: {error}") from None
    return context


def _shown(url: str) -> str:
    """The URL without a password, for messages."""
    return re.sub(r":[^:@/]*@", ":…@", url)
