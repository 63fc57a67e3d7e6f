"""How containers reach the local cloud. tests/sam_local runs functions in them."""

from __future__ import annotations

import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from local.cloud import HOST
from local.running import FUNCTIONS, RunningCloud, logical_id
from tools import engine, sam_local
from tools.sam_local import container_variables, relayed

LARGE = b"x" * 1_000_000


class Server(BaseHTTPRequestHandler):
    """Responds to a POST with its body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


class TestRelayed:
    def test_forwards_both_directions(self) -> None:
        with ThreadingHTTPServer((HOST, 0), Server) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            url = f"http://{HOST}:{server.server_port}"
            with relayed(HOST, [url]) as urls:
                assert urls[url] != url
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(urls[url], LARGE, timeout=30) as response:
                    assert response.read() == LARGE
            server.shutdown()

    def test_ends_connection_where_server_is_gone(self) -> None:
        url = f"http://{HOST}:{engine.free_port()}"
        with relayed(HOST, [url]) as urls:
            port = int(urls[url].rpartition(":")[2])
            with socket.create_connection((HOST, port), timeout=30) as connection:
                assert connection.recv(1) == b""

    def test_listens_within_the_block_only(self) -> None:
        with relayed(HOST, [f"http://{HOST}:1"]) as urls:
            (url,) = urls.values()
            port = int(url.rpartition(":")[2])
            assert engine.listens(HOST, port)
        assert not engine.listens(HOST, port)


class TestContainerVariables:
    def test_are_the_deployed_ones_with_urls_for_containers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployed = {"TABLE_NAME": "t", "DEAD_LETTERS_URL": "http://127.0.0.1:1/0/dead"}
        monkeypatch.setattr(RunningCloud, "variables", lambda *_: deployed)
        cloud = RunningCloud("http://127.0.0.1:1")
        urls = {cloud.endpoint: "http://172.17.0.1:2"}
        variables = container_variables(cloud, urls, {"API_AUTHORIZER": "none"})
        assert sorted(variables) == sorted(map(logical_id, FUNCTIONS))
        assert variables["GetCustomer"] == {
            "TABLE_NAME": "t",
            "DEAD_LETTERS_URL": "http://172.17.0.1:2/0/dead",
            "AWS_ENDPOINT_URL": "http://172.17.0.1:2",
            "API_AUTHORIZER": "none",
        }


class TestEnvironment:
    def test_has_no_credentials_of_the_caller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
        monkeypatch.setenv("AWS_PROFILE", "prod")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
        environment = sam_local.environment(RunningCloud("http://127.0.0.1:1"))
        assert {name: value for name, value in environment.items() if name.startswith("AWS_")} == {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
