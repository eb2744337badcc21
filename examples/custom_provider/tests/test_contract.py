"""The provider keeps the contract; its containers are the shell commands that the suite asks for by default."""

from __future__ import annotations

import socket
import sys
from typing import Any

from wasmlet_processes import ProcessProvider

from wasmlet.testing import ProviderContract

ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


class TestProcessProvider(ProviderContract):
    def make_provider(self) -> ProcessProvider:
        return ProcessProvider()

    def serving(self) -> tuple[dict[str, Any], int]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return {"image": "none", "command": [sys.executable, "-c", ECHO, str(port)]}, port

    def refused(self) -> dict[str, Any]:
        return {"containers": [{"livenessProbe": {"exec": {"command": ["true"]}}}]}
