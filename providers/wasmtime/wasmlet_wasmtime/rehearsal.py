"""Runs a guest that serves once in the zygote, before any real one.

Python adapts its bytecode when it runs. If that happens in the zygote, all children share the result. Otherwise each
child would spend time on it, and write it to memory of its own. See `guest.prepare` for a guest without sockets.
"""

from __future__ import annotations

import os
import socket
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import direct, hostcalls, socketed
from .seam import Answer

_REQUEST = b"ab"

SERVER = """
(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $connection i32)
    (drop (call $prestat (i32.const 3) (i32.const 0)))
    (drop (call $fdstat (i32.const 3) (i32.const 0)))
    (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0)))
    (local.set $connection (i32.load (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 64))               ;; iovec: one byte at 64
    (i32.store (i32.const 12) (i32.const 1))
    (i32.store8 (i32.const 136) (i32.const 1))             ;; subscription at 128: to read from the connection
    (i32.store (i32.const 144) (local.get $connection))
    (drop (call $read (local.get $connection) (i32.const 8) (i32.const 1) (i32.const 0)))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 0)))
    (drop (call $read (local.get $connection) (i32.const 8) (i32.const 1) (i32.const 0)))
    (drop (call $write (local.get $connection) (i32.const 8) (i32.const 1) (i32.const 0)))
    (drop (call $close (local.get $connection)))))
"""


class _Port(NamedTuple):
    number: int


class _Broker:
    """A broker for the rehearsal: it has one listener, to which a client has connected already."""

    listeners = (_Port(1),)

    def __init__(self, listener: int) -> None:
        self.wait: Callable[[int], bool] = bool
        self._listener = listener

    def open_listeners(self) -> Sequence[Sequence[int]]:
        return ((self._listener,),)

    def fileno(self) -> int:
        return -1

    def begin(self, operation: str, **fields: Any) -> int:
        raise NotImplementedError

    def take(self, number: int) -> Answer | None:
        raise NotImplementedError

    def drop(self, number: int) -> None:
        raise NotImplementedError

    def ask(self, operation: str, **fields: Any) -> Answer:
        raise NotImplementedError


def serve(links: socketed.Links, compiled: bytes) -> None:
    """Run `SERVER` once, over a Unix socket. Nothing of the engine's own WASI is called: that would start threads."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")  # at an abstract name that the kernel chooses
        listener.listen()
        listener.setblocking(False)
        client.connect(listener.getsockname())
        client.sendall(_REQUEST)
        code = direct.loaded(links.engine, compiled)
        wants = socketed.wanted(code)
        network = socketed.network(_Broker(os.dup(listener.fileno())), wants)
        hostcalls.networks[get_ident()] = network
        store, context = direct.store(links.engine, None, None, socketed.TABLES)
        socketed.instantiate(links, context, code, wants, network, direct.at_instance)
        direct.call(context, b"_start")
        if client.recv(1) != _REQUEST[1:]:
            raise RuntimeError("the rehearsal of a guest that serves has failed")
        del hostcalls.networks[get_ident()]
        del network.sockets[0]  # this process's own standard input
        network.close()
        direct.free(store, code)
