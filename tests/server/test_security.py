"""Hostile clients: refused, logged, and nobody else notices."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.server.security.gate import known_hosts
from edge_sdk.server.settings import RequestError, ServerLimits, patient_code
from tests.server.serving import Served, ServedHere, eventually

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    "Sec-WebSocket-Version": "13",
}


def status(
    server: Any, path: str, method: str = "GET", headers: dict[str, str] | None = None, *, token: bool = True
) -> int:
    """Status of a request whose path and headers are sent exactly as given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    given = dict(headers or {})
    if token and server.token:
        given.setdefault("Authorization", f"Bearer {server.token}")
    connection.putrequest(method, path, skip_host="Host" in given)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    connection.close()
    return answer.status


@pytest.fixture(scope="module")
def guarded(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server on all addresses with small limits."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "secret.session.json").write_text("{}")
    limits = ServerLimits(upload_mb=1, connections=40, patience_s=1.0, logins_per_minute=3, uploads_per_minute=5)
    with ServedHere(folder / "recordings", tiny, host="0.0.0.0", limits=limits) as server:
        server.url = f"http://127.0.0.1:{server.port}"
        server.ws_url = f"ws://127.0.0.1:{server.port}"
        yield server


@pytest.mark.parametrize(
    "path",
    ["/api/recordings", "/api/info", "/api/corpus", "/metrics", "/openapi.json", "/static/main.js", "/api/live", "/"],
)
def test_nothing_is_served_without_the_token(guarded: ServedHere, path: str) -> None:
    assert status(guarded, path, token=False) == 401
    assert status(guarded, path, headers={"Authorization": "Bearer wrong"}) == 401
    assert status(guarded, path, headers={"Cookie": f"stetho_{guarded.port}=wrong"}, token=False) == 401


@pytest.mark.parametrize("path", ["/api/streams", "/api/live"])
def test_no_socket_opens_without_the_token_or_from_another_page(guarded: ServedHere, path: str) -> None:
    assert status(guarded, path, headers=UPGRADE, token=False) == 401
    assert status(guarded, path, headers={**UPGRADE, "Origin": "http://evil.example"}) == 403
    assert status(guarded, path, headers={**UPGRADE, "Origin": f"http://127.0.0.1:{guarded.port}"}) == 101


def test_the_printed_link_logs_in_once_and_leaves_no_token_in_the_address(guarded: ServedHere) -> None:
    with guarded.client() as client:
        del client.headers["Authorization"]
        assert client.get("/", headers={"Accept": "text/html"}).headers["location"] == "/login"
        answer = client.get("/", params={"token": guarded.token})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and str(guarded.token) not in cookie
        assert client.get("/api/info").status_code == 200
        assert client.post("/logout").status_code == 200
        assert client.get("/api/info", headers={"Cookie": cookie.partition(";")[0]}).status_code == 401


def test_guessing_tokens_ends_after_a_few_tries(guarded: ServedHere) -> None:
    with guarded.client() as client:
        found = [client.post("/login", json={"token": f"guess-{n}"}).status_code for n in range(5)]
        assert found == [401, 401, 401, 429, 429]
        assert client.get("/api/info").status_code == 200  # who has the token is not locked out


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost.evil.example:80"}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "192.168.7.7"}, 200),
    ],
)
def test_other_origins_and_host_names_are_refused(guarded: ServedHere, headers: dict[str, str], expected: int) -> None:
    assert status(guarded, "/api/recordings", headers=headers) == expected


def test_on_loopback_only_names_of_loopback_are_answered(tiny: Bundle, tmp_path: Path) -> None:
    with ServedHere(tmp_path, tiny) as server:
        assert status(server, "/api/info", headers={"Host": "192.168.7.7"}) == 421  # DNS rebinding
        assert status(server, "/api/info", headers={"Host": f"localhost:{server.port}"}) == 200
    assert "lab.example" in known_hosts("0.0.0.0", ["Lab.example"])


@pytest.mark.parametrize(
    "path",
    [
        "/api/recordings/../secret",
        "/api/recordings/..%2fsecret",
        "/api/recordings/%2e%2e%2fsecret/audio",
        "/api/recordings/..\\secret",
        "/api/recordings/..%00/events",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "//etc/passwd",
        "/api/uploads/../../etc/passwd",
        "/api/examinations/..%2fsecret",
        "/api/corpus?recordings=../secret",
    ],
)
def test_no_path_leads_out_of_the_folder(guarded: ServedHere, path: str) -> None:
    assert status(guarded, path) in (404, 421)


def test_bodies_are_bounded_before_and_while_they_arrive(guarded: ServedHere) -> None:
    assert status(guarded, "/api/recordings", "POST", {"Content-Length": str(2 << 30)}) == 413
    assert status(guarded, "/api/examinations", "POST", {"Content-Length": str(1 << 20)}) == 413

    def endless() -> Any:
        for _ in range(40):
            yield b"\x00" * (1 << 16)

    with guarded.client() as client:
        answer = client.post("/api/recordings", content=endless())
        assert answer.status_code == 413 and not list((guarded.recordings / ".incoming").iterdir())
        files = [("file", (f"{n}.wav", b"RIFF")) for n in range(8)]
        states = client.post("/api/recordings", files=files).json()["uploads"]
        assert [s["state"] for s in states].count("refused") >= 3 and "a minute" in states[-1]["message"]


def test_a_form_that_is_no_form_is_refused(guarded: ServedHere) -> None:
    field = b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n"
    with guarded.client() as client:
        for kind, body in (
            ("multipart/form-data", b"x"),
            ("multipart/form-data; boundary=b", b"--c\r\n\r\n"),
            ("multipart/form-data; boundary=b", field + b"y" * 5000),
        ):
            answer = client.post("/api/recordings", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 422, answer.text


def test_slow_heads_are_cut_and_a_flood_of_connections_makes_room_for_people(guarded: ServedHere) -> None:
    address = ("127.0.0.1", guarded.port)
    flood = [socket.create_connection(address) for _ in range(300)]  # seven times what is allowed
    for one in flood[-20:]:
        one.sendall(b"GET / HTTP/1.1\r\nHost: ")
    with guarded.client() as client:
        assert client.get("/api/info").status_code == 200  # while they are all there
        began = time.monotonic()
        eventually(lambda: 'reason="slow-head"' in client.get("/metrics").text, 10)
        assert time.monotonic() - began < 8
        text = client.get("/metrics").text
        assert float(re.findall(r'cut_total{reason="made-room"} (\S+)', text)[0]) >= 250
    for one in flood:
        one.close()


def test_a_slow_body_is_cut(guarded: ServedHere) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port)) as slow:
        head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {guarded.token}\r\nContent-Length: 50000\r\n\r\n"
        slow.sendall(f"POST /api/examinations HTTP/1.1\r\n{head}".encode())
        slow.settimeout(15)
        slow.sendall(b'{"patient"')
        assert b"408" in slow.recv(4096)


def test_garbage_instead_of_http_is_answered_with_400(guarded: ServedHere) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00" * 20,
        b"GET\r\n\r\n",
        b"A" * 40_000,
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", guarded.port)) as connection:
            connection.sendall(garbage)
            connection.settimeout(10)
            answer = connection.recv(4096)
            assert answer.split(b" ")[1] in (b"400", b"421", b"431")
    with guarded.client() as client:
        assert client.get("/healthz").status_code == 200


def test_refusals_are_logged_without_the_token(guarded: ServedHere) -> None:
    status(guarded, "/api/recordings", token=False)
    status(guarded, "/api/info", headers={"Origin": "http://evil.example"})
    status(guarded, "/api/recordings", "POST", {"Content-Length": str(2 << 30)})
    status(guarded, "/api/info", headers={"Host": "evil.example"})
    lines = [line for line in guarded.audit() if line["action"] == "refused"]
    assert {"401", "403", "413", "421"} <= {line["reason"] for line in lines}
    assert str(guarded.token) not in json.dumps(guarded.audit())
    assert all(line["client"] == "127.0.0.1" for line in lines)


def test_every_answer_forbids_inline_scripts_and_foreign_sources(served: Served) -> None:
    with served.client() as client:
        page = client.get("/")
        for answer in (page, client.get("/static/main.js"), client.get("/api/info"), client.get("/nothing")):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", page.text)


def test_the_page_loads_nothing_from_elsewhere(repo_root: Path) -> None:
    for path in (repo_root / "edge_sdk" / "server" / "static").iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|\beval\(|innerHTML|document\.write", text), path.name


def test_tls_is_served_with_a_certificate(tiny: Bundle, tmp_path: Path) -> None:
    from edge_sdk.server.context import ServerOptions
    from edge_sdk.server.run import Address, build

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ServedHere(tmp_path / "r", tiny)
    server.built.listener.close()
    server.built = build(ServerOptions(tmp_path / "r", tiny), Address(None, 0, certificate, key))
    assert server.built.record["url"].startswith("https://127.0.0.1:")
    port = int(server.built.record["url"].rstrip("/").rpartition(":")[2])
    with server:
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["strict-transport-security"]


@pytest.mark.parametrize("text", ["P-017", "017", "a1", "2024.03_x"])
def test_codes_are_accepted(text: str) -> None:
    assert patient_code(text) == text


@pytest.mark.parametrize("text", ["", "Jane", "Jane Doe 3", "Müller3", "-3", "3" * 33, "3/4", "3\n"])
def test_what_may_be_a_name_or_a_path_is_no_code(text: str) -> None:
    with pytest.raises(RequestError, match="never by a name"):
        patient_code(text)


def test_the_audit_log_is_for_its_owner_only(served: Served) -> None:
    assert oct((served.recordings / "audit.jsonl").stat().st_mode)[-3:] == "600"
    assert served.audit()[0]["action"] == "server-start"
