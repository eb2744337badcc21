"""Tables of the WASI functions for descriptors or sockets: their types, and who answers them. Only data.

"Ours" are functions that the host answers in Python (`hostcalls`); the others are those of the engine. In a type, `i`
is an i32 and `I` an i64. Each function returns an i32, WASI's error number.

Sources: the witx files of preview 1; for what is beyond it, WasmEdge (`include/host/wasi/wasifunc.h`) and the crate
`wasmedge_wasi_socket`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

INVAL, NOTCAPABLE, NOTDIR, SPIPE = 28, 76, 54, 70
"""Error numbers of WASI."""


class Split(NamedTuple):
    """A function that is the engine's for files, and ours for sockets.

    Attributes:
        params: its type.
        refusal: the error number that it answers for every socket; None for one that sockets have.
        places: which parameters are descriptors.
    """

    params: str
    refusal: int | None = None
    places: tuple[int, ...] = (0,)


SPLIT: Mapping[str, Split] = {
    "fd_read": Split("iiii"),
    "fd_write": Split("iiii"),
    "fd_fdstat_get": Split("ii"),
    "fd_fdstat_set_flags": Split("ii"),
    "fd_filestat_get": Split("ii"),
    "fd_prestat_get": Split("ii"),
    "fd_prestat_dir_name": Split("iii", INVAL),
    "fd_pread": Split("iiiIi", SPIPE),
    "fd_pwrite": Split("iiiIi", SPIPE),
    "fd_seek": Split("iIii", SPIPE),
    "fd_tell": Split("ii", SPIPE),
    "fd_advise": Split("iIIi", SPIPE),
    "fd_allocate": Split("iII", SPIPE),
    "fd_datasync": Split("i", INVAL),
    "fd_sync": Split("i", INVAL),
    "fd_fdstat_set_rights": Split("iII", NOTCAPABLE),
    "fd_filestat_set_size": Split("iI", INVAL),
    "fd_filestat_set_times": Split("iIIi", INVAL),
    "fd_readdir": Split("iiiIi", NOTDIR),
    "path_create_directory": Split("iii", NOTDIR),
    "path_filestat_get": Split("iiiii", NOTDIR),
    "path_filestat_set_times": Split("iiiiIIi", NOTDIR),
    "path_link": Split("iiiiiii", NOTDIR, (0, 4)),
    "path_open": Split("iiiiiIIii", NOTDIR),
    "path_readlink": Split("iiiiii", NOTDIR),
    "path_remove_directory": Split("iii", NOTDIR),
    "path_rename": Split("iiiiii", NOTDIR, (0, 3)),
    "path_symlink": Split("iiiii", NOTDIR, (2,)),
    "path_unlink_file": Split("iii", NOTDIR),
}
"""All functions that take a descriptor, except `fd_close` and `fd_renumber`, which change what a number refers to."""

OWN: Mapping[str, str] = {
    "poll_oneoff": "iiii",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
"""Functions of preview 1 that are ours for every descriptor, files as well."""

WASMEDGE: Mapping[str, str] = {
    "sock_open": "iii",
    "sock_bind": "iii",
    "sock_connect": "iii",
    "sock_listen": "ii",
    "sock_recv_from": "iiiiiii",
    "sock_send_to": "iiiiiii",
    "sock_getsockopt": "iiiii",
    "sock_setsockopt": "iiiii",
    "sock_getlocaladdr": "iiii",
    "sock_getpeeraddr": "iiii",
    "sock_getaddrinfo": "iiiiiiii",
    "sock_accept_v2": "iii",
    "sock_open_v2": "iii",
    "sock_bind_v2": "iii",
    "sock_connect_v2": "iii",
    "sock_listen_v2": "ii",
    "sock_recv_v2": "iiiiii",
    "sock_recv_from_v2": "iiiiiiii",
    "sock_send_v2": "iiiii",
    "sock_send_to_v2": "iiiiiii",
    "sock_getlocaladdr_v2": "iii",
    "sock_getpeeraddr_v2": "iii",
}
"""What WasmEdge has beyond preview 1, in the same module."""

HTTP_MODULE = "wasi_experimental_http"
HTTP: Mapping[str, str] = {
    "req": "iiiiiiiiii",
    "close": "i",
    "header_get": "iiiiii",
    "headers_get_all": "iiii",
    "body_read": "iiii",
}
"""What Krustlet had in a module of its own (`krustlet`)."""

SECOND: Mapping[str, str] = {
    "sock_accept": "ii",
    "sock_recv_from": "iiiiiiii",
    "sock_getlocaladdr": "iii",
    "sock_getpeeraddr": "iii",
}
"""Functions with a second type. Modules import either one, because WasmEdge links the one that fits."""

SAME = {"sock_recv_v2": "sock_recv", "sock_send_v2": "sock_send", "sock_accept_v2": "sock_accept"} | {
    f"{name}_v2": name for name in ("sock_open", "sock_bind", "sock_connect", "sock_listen", "sock_send_to")
}
"""Functions of the second version (`_v2`) that do the same as those of the first one."""


def second(name: str) -> str:
    """The name in `shim` of a function with its second type."""
    return f"{name}:{len(SECOND[name])}"


def of_http(name: str) -> str:
    """The name in `shim` of a function of `HTTP`."""
    return f"http_{name}"


def own() -> dict[str, str]:
    """The types of all functions that are always ours, by their names in `shim` (`split`)."""
    seconds = {second(name): params for name, params in SECOND.items()}
    return {**OWN, **WASMEDGE, **seconds, **{of_http(name): params for name, params in HTTP.items()}}
