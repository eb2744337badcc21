"""A process that has no file descriptor left: its servers say so once, and answer again when there are some."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAM = """
import asyncio, os, resource, sys
from pathlib import Path
import structlog
import wasmlet
from wasmlet.testing import ControlPlane
from wasmlet.testing.reference import ReferenceProvider

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

def take_all():
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return taken

async def main(state):
    read = lambda: asyncio.to_thread(sys.stdin.readline)
    async with ControlPlane() as plane:
        config = wasmlet.NodeConfig(
            kubeconfig=plane.node_kubeconfig("n"), node_name="n", node_ip="127.0.0.1", port=0,
            client_ca_file=plane.client_ca_file, state_dir=Path(state), serving_csr=False,
        )
        async with wasmlet.Node(ReferenceProvider(), config):
            print(plane.url.rpartition(":")[2], flush=True)
            await read()
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
            taken = take_all()
            print("none left", flush=True)
            await read()
            for descriptor in taken:
                os.close(descriptor)
            await read()

asyncio.run(main(sys.argv[1]))
"""
SECONDS = 20
TRIES_SECONDS = 2.5
"""asyncio tries to accept again each second; this is long enough for two more tries."""


@contextmanager
def program(state: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(state)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        with process:
            try:
                yield process
            finally:
                process.kill()


def test_a_shortage_of_descriptors_is_reported_once_and_passes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ExitStack() as stack:
        process = stack.enter_context(program(tmp_path / "state", log))
        assert process.stdin is not None
        assert process.stdout is not None
        plane = process.stdout.readline()
        node = re.search(r"node ready .* port=(\d+)", log.read_text())
        assert node is not None, log.read_text()
        ports = [int(plane), int(node[1])]
        print("take", file=process.stdin, flush=True)
        assert process.stdout.readline() == "none left\n"
        callers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS)) for port in ports * 3]
        for caller in callers:
            caller.settimeout(TRIES_SECONDS / len(callers))
            try:
                assert caller.recv(1), "nobody may be hung up on"
            except TimeoutError:
                continue
            raise AssertionError("the process had a descriptor left")
        print("free", file=process.stdin, flush=True)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for caller in callers:
            caller.settimeout(SECONDS)
            with context.wrap_socket(caller) as secured:
                assert secured.version() == "TLSv1.3"
        said = log.read_text()
    assert said.count("cannot accept connections") == 1, said
    assert "Too many open files" in said
    assert "Traceback" not in said
    assert "This process may have 300 file descriptors" in said
