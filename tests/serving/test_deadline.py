"""One deadline for a whole request, against raw sockets that keep a client waiting in every way HTTP has."""

import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from laser.core.errors import ServerError
from laser.serving.endpoint import Endpoint

TIMEOUT = 0.5


@contextmanager
def raw_server(behave):
    """Calls `behave(connection)` with each connection, each in a separate thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=attempt, args=(connection,), daemon=True).start()

        def attempt(connection):
            with connection:
                try:
                    behave(connection)
                except OSError:  # the client has gone, which is what it should do
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def drips(start, piece, every=0.05):
    def behave(connection):
        connection.recv(2**16)
        connection.sendall(start)
        for _ in range(400):
            connection.sendall(piece)
            time.sleep(every)

    return behave


def never_reads(connection):
    time.sleep(20)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WAYS = {
    "silence": drips(b"", b""),
    "continue": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "fast continue": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, every=0.001),
    "early hints": drips(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "status line": drips(b"HTTP/1.1 200 ", b"O"),
    "header": drips(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "headers": drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "chunk size": drips(CHUNKED, b"0"),
    "chunk extension": drips(CHUNKED + b"1;", b"a" * 10),
    "chunks": drips(CHUNKED, b"1\r\n \r\n"),
    "trailers": drips(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
    "body without length": drips(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "error body": drips(b"HTTP/1.1 400 No\r\nContent-Length: 1000\r\n\r\n", b" "),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_server_cannot_hold_a_request_beyond_its_deadline(way):
    before = threading.active_count()
    with raw_server(WAYS[way]) as url:
        begun = time.monotonic()
        with pytest.raises(ServerError, match=r"did not answer within 0\.5 s|cannot be reached"):
            Endpoint(url, timeout=TIMEOUT, retries=0).post("/x", {})
        assert time.monotonic() - begun < 4 * TIMEOUT
        assert sum(thread.name.startswith("ThreadPool") for thread in threading.enumerate()) == 0
        assert threading.active_count() <= before + 2  # the server's own


@pytest.mark.slow
def test_a_server_that_does_not_read_cannot_hold_a_large_request():
    with raw_server(never_reads) as url:
        begun = time.monotonic()
        with pytest.raises(ServerError, match="did not answer within"):
            Endpoint(url, timeout=TIMEOUT, retries=0).post("/x", {"text": "x" * 2**25})
        assert time.monotonic() - begun < 8 * TIMEOUT


@pytest.mark.slow
@pytest.mark.parametrize("dripping", [False, True])
def test_a_slow_handshake_cannot_hold_a_request(dripping):
    def behave(connection):
        connection.recv(2**16)
        if dripping:
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB, a byte at a time
        for _ in range(400):
            connection.sendall(b"\x02" if dripping else b"")
            time.sleep(0.05)

    with raw_server(behave) as url:
        begun = time.monotonic()
        with pytest.raises(ServerError, match=r"did not answer within 0\.5 s"):
            Endpoint(url.replace("http:", "https:"), timeout=TIMEOUT, retries=0).post("/x", {})
        assert time.monotonic() - begun < 6 * TIMEOUT


@pytest.mark.slow
def test_a_slow_lookup_of_the_name_holds_neither_the_request_nor_more_than_one_thread(monkeypatch):
    released = threading.Event()
    lookups = []

    def slow(*arguments, **options):
        lookups.append(arguments)
        released.wait(20)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    endpoint = Endpoint("http://judge.example:8000", timeout=TIMEOUT, retries=0)
    begun = time.monotonic()
    outcomes = endpoint.post_each("/x", [{}] * 6, max_failures=100)
    assert time.monotonic() - begun < 4 * TIMEOUT
    assert all("did not answer within" in str(outcome.error) for outcome in outcomes)
    assert len(lookups) == 1
    released.set()
    time.sleep(0.1)
    with pytest.raises(ServerError, match=r"cannot be reached.*no such name"):
        endpoint.post("/x", {})


@pytest.mark.slow
def test_retries_have_a_deadline_each():
    with raw_server(WAYS["headers"]) as url:
        begun = time.monotonic()
        with pytest.raises(ServerError, match="2 times"):
            Endpoint(url, timeout=0.3, retries=1).post("/x", {})
        assert 0.6 <= time.monotonic() - begun < 4


def test_a_reply_in_time_is_read_however_it_is_cut(tmp_path):
    """Over TLS, with hints before it, in chunks with extensions and trailers, byte by byte."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    body = json.dumps({"fine": True}).encode()

    def behave(connection):
        with context.wrap_socket(connection, server_side=True) as encrypted:
            received = b""
            while not received.endswith(b"{}"):  # unread bytes would reset the connection
                received += encrypted.recv(2**16)
            whole = b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED
            whole += b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nX: y\r\n\r\n"
            for byte in whole:
                encrypted.sendall(bytes([byte]))

    with raw_server(behave) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        endpoint = Endpoint(url.replace("http://127.0.0.1", "https://localhost"), timeout=20, retries=0)
        assert endpoint.post("/x", {}) == {"fine": True}
        endpoint.close()
