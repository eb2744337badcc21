"""Writes the WebAssembly that sends each WASI call of a guest either to the engine (files) or to us (sockets).

A function such as `fd_read` may be called for a file or for a socket; the number of the descriptor tells which. Files
are served by the engine's own WASI, in native code. Sockets are served by one Python function, `net.call`. If Python
were asked at each call of `fd_read`, files would be slow. So the decision itself is made in WebAssembly.

It takes two modules, `shim` and `fixup`, because the guest and the decision need each other: the guest can only be made
when the functions that it imports are there, and the functions that decide need the guest's memory, since the engine's
WASI looks for it among the exports of the module that calls it. So they are made in this order:

1. `shim`, which has a table of functions that is still empty. Each function that it exports calls its entry there.
2. The guest, which imports the functions of `shim`.
3. `fixup`, which imports the guest's memory, exports it again for the engine, and fills the table with the functions
   that decide.

When `fixup` starts, it asks Python which of the descriptors below `LOW` are sockets (`WHICH`). Sockets that the guest
opens later get numbers from `FIRST` on. Nothing in the two modules depends on the guest, so they are compiled once.

`net.call` is given the number of an operation, the size of the guest's memory in pages of 64 KiB, and the arguments.
"""

from __future__ import annotations

from .functions import OWN, SPLIT, own

WASI = "wasi_snapshot_preview1"
FIRST = 0x4000
"""The first number of a socket that a guest accepts or opens; the engine's own are below."""
LOW = 128
"""Descriptors below this may be files or sockets: a listener, standard input, or one that was renumbered."""

WHICH, CLOSE, RENUMBER, REFUSE = range(4)
"""Operations that are not whole functions of WASI: `WHICH` asks which of 32 low descriptors are sockets, and the others
are the host's part of closing, renumbering and refusing."""
_NAMED = [*(name for name, split in SPLIT.items() if split.refusal is None), *own()]
OPERATIONS = {name: number for number, name in enumerate(_NAMED, 4)}
"""The number of each operation, by the name of its function."""

_ARGUMENTS = 10
PARAMETERS = 2 + _ARGUMENTS
"""How many parameters `net.call` has."""
_BADF, _NOTSUP = 8, 58
_TABLE = [*SPLIT, "fd_close", "fd_renumber", *own()]
_NATIVE = {**{name: split.params for name, split in SPLIT.items()}, "fd_close": "i", "fd_renumber": "ii"}


def _type(params: str) -> str:
    words = " ".join("i32" if param == "i" else "i64" for param in params)
    return f"(param {words}) (result i32)"


def _locals(params: str) -> str:
    return " ".join(f"(local.get {place})" for place in range(len(params)))


def _call(operation: int, *arguments: str) -> str:
    rest = ["(i32.const 0)"] * (_ARGUMENTS - len(arguments))
    return f"(call $net (i32.const {operation}) (memory.size) {' '.join((*arguments, *rest))})"


def _params(name: str) -> str:
    return _NATIVE.get(name) or own()[name]


def shim() -> str:
    """The text of `shim`, in WebAssembly's text format: a table, and a function for each one that the guest imports."""
    functions = [
        f'(func (export "{name}") {_type(params)} '
        f"(call_indirect {_type(params)} {_locals(params)} (i32.const {place})))"
        for place, (name, params) in enumerate((name, _params(name)) for name in _TABLE)
    ]
    return f'(module (table (export "table") {len(_TABLE)} {len(_TABLE)} funcref) {" ".join(functions)})'


def fixup_imports() -> list[tuple[str, str]]:
    """What `fixup` imports: pairs of module and name, in the order in which it wants them."""
    others = [("guest", "memory"), ("shim", "table"), ("net", "call"), (WASI, "poll_oneoff"), (WASI, "clock_time_get")]
    return [*others, *((WASI, name) for name in _NATIVE)]


def fixup() -> str:
    """The text of `fixup`, in WebAssembly's text format: the functions that decide, which go into `shim`'s table."""
    imports = [f'(import "{WASI}" "{name}" (func $native_{name} {_type(params)}))' for name, params in _NATIVE.items()]
    functions = [_split(name) for name in SPLIT]
    functions += [
        f"(func ${name} {_type(params)} {_call(OPERATIONS[name], *_each(params))})" for name, params in own().items()
    ]
    elements = " ".join(f"${name}" for name in _TABLE)
    return f"""(module
      (import "guest" "memory" (memory 0))
      (import "shim" "table" (table {len(_TABLE)} funcref))
      (import "net" "call" (func $net {_type("i" * PARAMETERS)}))
      (import "{WASI}" "poll_oneoff" (func $native_poll_oneoff {_type(OWN["poll_oneoff"])}))
      (import "{WASI}" "clock_time_get" (func $native_clock_time_get {_type("iIi")}))
      {" ".join(imports)}
      (export "memory" (memory 0))
      (global $low (mut i64) (i64.const 0))
      (global $high (mut i64) (i64.const 0))
      {_HELPERS}
      {" ".join(functions)}
      (func (export "poll") {_type("iiii")} (call $native_poll_oneoff {_locals("iiii")}))
      (func (export "now") {_type("iiii")}
        (call $native_clock_time_get (i32.const 1) (i64.const 0) (local.get 0)))
      (elem (i32.const 0) func {elements})
      (start $begin))"""


def _each(params: str) -> list[str]:
    return [f"(local.get {place})" for place in range(len(params))]


def _split(name: str) -> str:
    """A function of `fixup` that goes to the host for a socket, and to the engine for anything else."""
    split = SPLIT[name]
    is_ours = f"(call $is_ours (local.get {split.places[0]}))"
    which = f"(local.get {split.places[0]})"
    for place in split.places[1:]:
        which = f"(select (local.get {place}) {which} (call $is_ours (local.get {place})))"
        is_ours = f"(i32.or {is_ours} (call $is_ours (local.get {place})))"
    if split.refusal is None:
        ours = _call(OPERATIONS[name], *_each(split.params))
    else:
        ours = _call(REFUSE, which, f"(i32.const {split.refusal})")
    native = f"(call $native_{name} {_locals(split.params)})"
    return f"(func ${name} {_type(split.params)} (if (result i32) {is_ours} (then {ours}) (else {native})))"


_FD, _TO = "(local.get 0)", "(local.get 1)"
_HELPERS = f"""
  (func $is_ours (param i32) (result i32)
    (if (result i32) (i32.lt_u {_FD} (i32.const {LOW}))
      (then (i32.wrap_i64 (i64.and (i64.const 1) (i64.shr_u
        (select (global.get $low) (global.get $high) (i32.lt_u {_FD} (i32.const 64)))
        (i64.extend_i32_u {_FD})))))
      (else (i32.ge_u {_FD} (i32.const {FIRST})))))

  ;; Note that a low descriptor is a socket (1) or is none (0) from now on.
  (func $mark (param i32) (param i64) (local i64)
    (local.set 2 (i64.shl (i64.const 1) (i64.extend_i32_u {_FD})))
    (if (i32.lt_u {_FD} (i32.const 64))
      (then (global.set $low (i64.or
        (i64.and (global.get $low) (i64.xor (local.get 2) (i64.const -1))) (i64.mul (local.get 2) (local.get 1)))))
      (else (if (i32.lt_u {_FD} (i32.const {LOW}))
        (then (global.set $high (i64.or
          (i64.and (global.get $high) (i64.xor (local.get 2) (i64.const -1)))
          (i64.mul (local.get 2) (local.get 1)))))))))

  ;; 64 descriptors from 32 times the parameter on: a bit for each that is a socket.
  (func $word (param i32) (result i64)
    (i64.or
      (i64.extend_i32_u {_call(WHICH, _FD)})
      (i64.shl (i64.extend_i32_u {_call(WHICH, f"(i32.add {_FD} (i32.const 1))")}) (i64.const 32))))
  (func $begin
    (global.set $low (call $word (i32.const 0)))
    (global.set $high (call $word (i32.const 2))))

  ;; A low descriptor is a socket no longer. The engine has something under its number, too, so that it does not give
  ;; the number to a file; that is closed now.
  (func $let_go (param i32)
    (if (i32.lt_u {_FD} (i32.const {LOW}))
      (then
        (call $mark {_FD} (i64.const 0))
        (drop (call $native_fd_close {_FD})))))

  (func $fd_close (param i32) (result i32) (local i32)
    (if (i32.eqz (call $is_ours {_FD})) (then (return (call $native_fd_close {_FD}))))
    (local.set 1 {_call(CLOSE, _FD)})
    (if (i32.eqz (local.get 1)) (then (call $let_go {_FD})))
    (local.get 1))

  (func $fd_renumber (param i32 i32) (result i32) (local i32)
    (if (i32.eqz (call $is_ours {_FD}))
      (then
        (if (i32.eqz (call $is_ours {_TO})) (then (return (call $native_fd_renumber {_FD} {_TO}))))
        (if (i32.ge_u {_TO} (i32.const {LOW})) (then (return (i32.const {_NOTSUP}))))
        (local.set 2 (call $native_fd_renumber {_FD} {_TO}))
        (if (local.get 2) (then (return (local.get 2))))
        (drop {_call(CLOSE, _TO)})
        (call $mark {_TO} (i64.const 0))
        (return (i32.const 0))))
    (if (i32.eqz (call $is_ours {_TO}))
      (then
        (if (i32.ge_u {_TO} (i32.const {LOW})) (then (return (i32.const {_NOTSUP}))))
        ;; The socket takes a number that the engine has open. The engine keeps it open, so that no file gets it.
        (local.set 2 (call $native_fd_renumber {_TO} {_TO}))
        (if (local.get 2) (then (return (local.get 2))))))
    (local.set 2 {_call(RENUMBER, _FD, _TO)})
    (if (i32.and (i32.eqz (local.get 2)) (i32.ne {_FD} {_TO}))
      (then
        (call $let_go {_FD})
        (call $mark {_TO} (i64.const 1))))
    (local.get 2))
"""
