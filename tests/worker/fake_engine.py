"""An engine that needs nothing: "modules" are scripts of a few words, so the worker can be tested under any Python.

The arguments of a container are its instructions; see `run`.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
import time


def prepare():
    return {"prepared_by": os.getpid()}


def compile(wasm):  # noqa: A001
    if b"bad" in wasm:
        raise ValueError("the module is bad")
    if b"crash" in wasm:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"broken" in wasm:
        raise RuntimeError("the engine is broken")
    if b"slow" in wasm:
        time.sleep(3600)
    if b"greedy" in wasm:
        bytearray(2**40)
    if b"wordy" in wasm:
        raise ValueError("the engine is " + "x" * 1000)
    if b"gate:" in wasm:
        while not os.path.exists(wasm.split(b"gate:")[1].split(b";")[0]):
            time.sleep(0.01)
    print("chatter of the engine")
    return b"compiled " + wasm


def is_open(number):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def run(prepared, spec, module, started):
    words = iter(spec["args"])
    out = os.fdopen(1, "wb", buffering=0, closefd=False)
    for word in words:
        if word == "refuse":
            raise ValueError(next(words))
        if word == "bug":
            raise RuntimeError(next(words))
        if word == "artifact":
            error = RuntimeError("cannot be loaded")
            error.bad_artifact = True
            raise error
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "start":
            started()
        elif word == "print":
            out.write(next(words).encode() + b"\n")
        elif word == "error":
            os.write(2, next(words).encode() + b"\n")
        elif word == "write":
            out.write(bytes.fromhex(next(words)))
        elif word == "env":
            out.write(repr(spec["env"]).encode() + b"\n")
        elif word == "module":
            with open(module, "rb") as file:
                out.write(file.read() + b"\n")
        elif word == "world":  # all that this process has beside the spec
            out.write(
                repr(
                    {
                        "environ": dict(os.environ),
                        "argv": sys.argv,
                        "descriptors": [number for number in range(1024) if is_open(number)],
                        "zygote": prepared["prepared_by"],
                        "parent": os.getppid(),
                    }
                ).encode()
                + b"\n"
            )
        elif word == "flood":
            line = b"x" * 63 + b"\n"
            for _ in range(int(next(words)) // 1024):
                out.write(line * 1024)
        elif word == "sleep":
            time.sleep(float(next(words)))
        elif word == "spin":
            while True:
                pass
        elif word == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif word == "signal":
            os.kill(os.getpid(), int(next(words)))
        elif word == "take":  # MiB of memory
            held = bytearray(int(next(words)) << 20)
            for page in range(0, len(held), 4096):
                held[page] = 1
            out.write(b"%d\n" % len(held))
        elif word == "trap":
            return 134, next(words)
        elif word == "cat":  # standard input, to its end
            while data := os.read(0, 65536):
                out.write(data)
        elif word == "terminal":
            out.write(f"{[os.isatty(number) for number in range(3)]}\n".encode())
        elif word == "exit":
            return int(next(words)), ""
        elif word == "serve":  # one byte for each of so many connections, at its first port
            serve(spec["sockets"].open_listeners()[0][0], int(next(words)))
        elif word == "ask":
            out.write(came_of(spec, json.loads(next(words))))
        elif word == "network":
            out.write(f"{spec.get('network')} {'sockets' in spec}\n".encode())
    return 0, ""


def serve(descriptor, count):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    listener.listen()
    for _ in range(count):
        select.select([listener], [], [])
        accepted, _peer = listener._accept()
        os.write(accepted, b"x")
        os.close(accepted)
    listener.close()


def came_of(spec, asked):
    """What the broker says: an errno's name, or the fields, or the first bytes of whoever was dialled."""
    answer = spec["sockets"].ask(asked.pop("ask"), **asked)
    if answer.error:
        return errno.errorcode[answer.error].encode() + b" " + answer.why.encode() + b"\n"
    said = b""
    for descriptor in answer.fds:
        select.select([descriptor], [], [], 10)
        said += os.read(descriptor, 100)
        os.close(descriptor)
    return (said or json.dumps(answer.fields).encode()) + b"\n"


STACK = 256 * 1024
LOADED = []


def load(prepared, module):
    with open(module, "rb") as file:
        LOADED.append(file.read())
    if LOADED[-1] == b"bad":
        error = RuntimeError("cannot be loaded")
        error.bad_artifact = True
        raise error
    return len(LOADED)


class Guest:
    """One of many in a process; it knows fewer words."""

    def __init__(self, prepared, code, spec, stdout, stderr):
        self.code, self.spec = code, spec
        self.streams = [os.open(path, os.O_WRONLY) for path in (stdout, stderr)]
        self.ending = threading.Event()

    def interrupt(self):
        self.ending.set()

    def run(self, started):
        try:
            return self.follow(iter(self.spec["args"]), started)
        finally:
            for stream in self.streams:
                os.close(stream)

    def follow(self, words, started):
        for word in words:
            if word == "refuse":
                raise ValueError(next(words))
            if word == "bug":
                raise RuntimeError(next(words))
            if word == "start":
                started(4096)
            elif word == "print":
                os.write(self.streams[0], next(words).encode() + b"\n")
            elif word == "error":
                os.write(self.streams[1], next(words).encode() + b"\n")
            elif word == "env":
                os.write(self.streams[0], repr(self.spec["env"]).encode() + b"\n")
            elif word == "loaded":  # how many modules this process has loaded, and which of them this one is
                os.write(self.streams[0], f"{len(LOADED)} {self.code}\n".encode())
            elif word == "world":
                names = [number for number in range(1024) if is_open(number)]
                os.write(self.streams[0], repr({"descriptors": names, "pid": os.getpid()}).encode() + b"\n")
            elif word == "flood":
                line = b"x" * 63 + b"\n"
                for _ in range(int(next(words)) // 1024):
                    os.write(self.streams[0], line * 1024)
                    if self.ending.is_set():
                        return 134, "", True
            elif word == "sleep":
                if self.ending.wait(float(next(words))):
                    return 134, "", True
            elif word == "stubborn":  # nothing ends it but the end of the process
                time.sleep(1000)
            elif word == "signal":
                os.kill(os.getpid(), int(next(words)))
                time.sleep(1000)
            elif word == "trap":
                return 134, next(words), False
            elif word == "exit":
                return int(next(words)), "", False
            elif word == "serve":
                serve(self.spec["sockets"].open_listeners()[0][0], int(next(words)))
            elif word == "ask":
                os.write(self.streams[0], came_of(self.spec, json.loads(next(words))))
            elif word == "say":  # to the shim, as if it were the worker
                os.write(3, next(words).encode())
            elif word == "network":
                said = f"{self.spec.get('network')} {'sockets' in self.spec}\n"
                os.write(self.streams[0], said.encode())
        return 0, "", False
