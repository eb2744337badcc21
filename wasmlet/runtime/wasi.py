"""The functions of WASI preview 1 and preview 0 with their types, from the witx files of the WASI repository."""

from __future__ import annotations

from wasmlet.artifacts.wasm_types import Signature

PREVIEW1 = "wasi_snapshot_preview1"
PREVIEW0 = "wasi_unstable"

_PARAMETERS = """
args_get i32 i32 | args_sizes_get i32 i32 | environ_get i32 i32 | environ_sizes_get i32 i32
clock_res_get i32 i32 | clock_time_get i32 i64 i32
fd_advise i32 i64 i64 i32 | fd_allocate i32 i64 i64 | fd_close i32 | fd_datasync i32 | fd_fdstat_get i32 i32
fd_fdstat_set_flags i32 i32 | fd_fdstat_set_rights i32 i64 i64 | fd_filestat_get i32 i32 | fd_filestat_set_size i32 i64
fd_filestat_set_times i32 i64 i64 i32 | fd_pread i32 i32 i32 i64 i32 | fd_prestat_get i32 i32
fd_prestat_dir_name i32 i32 i32 | fd_pwrite i32 i32 i32 i64 i32 | fd_read i32 i32 i32 i32
fd_readdir i32 i32 i32 i64 i32 | fd_renumber i32 i32 | fd_seek i32 i64 i32 i32 | fd_sync i32 | fd_tell i32 i32
fd_write i32 i32 i32 i32
path_create_directory i32 i32 i32 | path_filestat_get i32 i32 i32 i32 i32
path_filestat_set_times i32 i32 i32 i32 i64 i64 i32 | path_link i32 i32 i32 i32 i32 i32 i32
path_open i32 i32 i32 i32 i32 i64 i64 i32 i32 | path_readlink i32 i32 i32 i32 i32 i32
path_remove_directory i32 i32 i32
path_rename i32 i32 i32 i32 i32 i32 | path_symlink i32 i32 i32 i32 i32 | path_unlink_file i32 i32 i32
poll_oneoff i32 i32 i32 i32 | proc_exit i32 | proc_raise i32 | sched_yield | random_get i32 i32
sock_accept i32 i32 i32 | sock_recv i32 i32 i32 i32 i32 i32 | sock_send i32 i32 i32 i32 i32 | sock_shutdown i32 i32
"""


def _functions() -> dict[str, Signature]:
    found = {}
    for entry in _PARAMETERS.replace("\n", " | ").split("|"):
        if words := entry.split():
            found[words[0]] = Signature(tuple(words[1:]), () if words[0] == "proc_exit" else ("i32",))
    return found


PREVIEW1_FUNCTIONS = _functions()
"""The functions of preview 1 by name. All but `proc_exit` return an error number."""

PREVIEW0_FUNCTIONS = {name: kind for name, kind in PREVIEW1_FUNCTIONS.items() if name != "sock_accept"}
"""Those of preview 0, which have the same types."""
