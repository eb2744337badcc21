"""Serve a component in a process of its own, without a shim: `python serve_direct.py WASM JSON`.

JSON: what `spec["network"]["http"]` has, `limits` of connections, and `buffer`, the bytes that the system keeps of what
is sent over one of them. The first line of the output is the port, on
127.0.0.1; what the guest and the engine say comes on standard error. The broker is that of `direct_run`: this process
itself. It is served until standard input ends. A line there asks for the numbers of descriptors, resources,
instances, and requests that are being served, which come as a line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from direct_run import Answer, Sockets


class Loopback(Sockets):
    """One that listens at a free port, and says at which."""

    buffer = 0

    def wait(self, descriptor: int) -> bool:
        return bool(select.select([descriptor], [], [], 5.0))

    def _at(self, port: int) -> int:
        return 0

    def _listen(self, port: int, protocol: str) -> Answer:
        answer = super()._listen(port, protocol)
        with socket.socket(fileno=os.dup(answer.fds[0])) as sock:
            if self.buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer)
            print(sock.getsockname()[1], flush=True)
        return answer


def main() -> None:
    from wasmlet_wasmtime import guest
    from wasmlet_wasmtime.p2 import serving
    from wasmlet_wasmtime.p2.connections import Limits
    from wasmlet_wasmtime.p2.front import Front
    from wasmlet_wasmtime.p2.instances import Instance

    compiled = guest.compile(Path(sys.argv[1]).read_bytes())
    directory = tempfile.mkdtemp()
    mounts = [{"directory": directory, "path": "/data", "read_only": False}]
    spec = {"args": ["guest"], "env": [], "mounts": mounts, "sockets": Loopback([8080]), "memory": None}
    wanted = json.loads(sys.argv[2])
    serving.Front = partial(serving.Front, limits=Limits(**wanted.pop("limits", {})))  # type: ignore[assignment,misc]
    spec["sockets"].buffer = wanted.pop("buffer", 0)
    spec["network"] = {"http": wanted}

    def count() -> None:
        for _ in sys.stdin:
            gc.collect()
            everything = gc.get_objects()
            instances = [one for one in everything if isinstance(one, Instance)]
            found = {"descriptors": len(os.listdir("/proc/self/fd")), "instances": len(instances)}
            found["resources"] = sum(len(one.resources) for one in instances)
            found["requests"] = sum(len(one._turns) for one in everything if isinstance(one, Front))
            del everything, instances  # which would be there at the next count
            print(json.dumps(found), flush=True)
        os._exit(0)

    threading.Thread(target=count, daemon=True).start()
    with tempfile.NamedTemporaryFile() as module:
        module.write(compiled)
        module.flush()
        guest.run(guest.prepare(), spec, module.name, lambda: None)


if __name__ == "__main__":
    main()
