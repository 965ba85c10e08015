"""S3 server on loopback, and a relay in front of it that records requests and drops responses."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

BUCKET = "galaxies"
KEY_ID = "AKIALOOPBACKONLY"
SECRET = "never-written-anywhere-0123456789abcdef"
SERVER_START_S = 30


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server with one empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            _wait_for(endpoint, server)
            ask_s3(endpoint, "PUT", f"/{BUCKET}")
            yield endpoint
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def s3_endpoint(s3_server: str) -> Iterator[str]:
    """Address of the S3 server, set in the environment for the tests of one module."""
    with s3_environment(s3_server):
        yield s3_server


@contextmanager
def s3_environment(endpoint: str) -> Iterator[None]:
    """Set the `AWS_*` variables as a user would."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_variables(endpoint).items():
            patch.setenv(name, value)
        yield


def s3_variables(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def ask_s3(endpoint: str, method: str, path: str) -> bytes:
    """Send one request and return the body of its response."""
    # the server on loopback reads the region from here and checks no signature
    scope = f"Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none"}
    request = urllib.request.Request(f"{endpoint}{path}", method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def list_objects(endpoint: str, prefix: str) -> list[str]:
    """Return the keys of the bucket's objects under a prefix."""
    keys: list[str] = []
    while True:
        query = urllib.parse.urlencode({"list-type": 2, "prefix": prefix, "start-after": keys[-1] if keys else ""})
        page = ET.fromstring(ask_s3(endpoint, "GET", f"/{BUCKET}/?{query}"))
        new = [str(node.text) for node in page.iter() if node.tag.endswith("}Key")]
        if not new:
            return keys
        keys += new


def read_object(endpoint: str, key: str) -> bytes:
    return ask_s3(endpoint, "GET", f"/{BUCKET}/{urllib.parse.quote(key)}")


def delete_objects(endpoint: str, prefix: str) -> None:
    for key in list_objects(endpoint, prefix):
        ask_s3(endpoint, "DELETE", f"/{BUCKET}/{urllib.parse.quote(key)}")


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + SERVER_START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"no S3 server came up at {endpoint} (exit code {server.poll()})")


def moves_the_branch(method: str, path: str) -> bool:
    """Return True if a request makes a commit valid: it writes the branch (Icechunk 1) or the repository file (2)."""
    return method == "PUT" and ("/refs/branch." in path or path.partition("?")[0].endswith("/repo"))


@dataclass(slots=True)
class Relay:
    """S3 endpoint that forwards requests, or drops them or their responses.

    Attributes
    ----------
    endpoint
        Address.
    drops_request
        Called with method and path before a request is forwarded; True drops the connection instead.
    loses_answer
        Called with method and path after the response; True drops the connection instead.
    asked
        Method, path and status of every forwarded request; status 0 if the response was dropped.
    """

    endpoint: str
    drops_request: Callable[[str, str], bool] = lambda _method, _path: False
    loses_answer: Callable[[str, str], bool] = lambda _method, _path: False
    asked: list[tuple[str, str, int]] = field(default_factory=list)


@contextmanager
def relayed(endpoint: str) -> Iterator[Relay]:
    """Yield a relay in front of an S3 server."""
    host, port = urllib.parse.urlsplit(endpoint).netloc.split(":")
    with _Listener(("127.0.0.1", 0), _Passing) as listener:
        relay = Relay(endpoint=f"http://127.0.0.1:{listener.server_address[1]}")
        listener.relay, listener.behind = relay, (host, int(port))
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield relay
        finally:
            listener.shutdown()
            thread.join()


class _Listener(ThreadingHTTPServer):
    relay: Relay
    behind: tuple[str, int]
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up, as killed ones do."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def _pass_on(self) -> None:
        relay, method = self.server.relay, self.command
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if relay.drops_request(method, self.path):
            self._hang_up()
            return
        behind = HTTPConnection(*self.server.behind, timeout=30)
        try:
            behind.request(method, self.path, body=body, headers=dict(self.headers.items()))
            answer = behind.getresponse()
            content = answer.read()
        finally:
            behind.close()
        if relay.loses_answer(method, self.path):
            relay.asked.append((method, self.path, 0))
            self._hang_up()
            return
        relay.asked.append((method, self.path, answer.status))
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if method == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
        """Log nothing: `Relay.asked` has the requests."""
