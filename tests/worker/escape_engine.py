"""An engine that has been led astray: its guest does natively, in the confined process, what no guest may.

A container's arguments are the name of a deed and, as JSON, what it is to know of the machine. It writes what came of
the deed, as JSON: the name of an error, or `{"done": ...}`; where the deed ended its process, nothing.
"""

import array
import ctypes
import errno
import fcntl
import functools
import json
import mmap
import os
import signal
import socket
import stat
import struct
import termios
import time

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "unshare": 272, "setns": 308, "mount": 165, "chroot": 161, "bpf": 321, "keyctl": 250,
        "io_uring_setup": 425, "perf_event_open": 298, "userfaultfd": 323, "process_vm_readv": 310, "pidfd_open": 434,
        "pidfd_getfd": 438, "execveat": 322, "clone3": 435, "open_by_handle_at": 304, "personality": 135,
        "init_module": 175, "capset": 126, "pivot_root": 155, "sendmmsg": 307,
    },
    "aarch64": {
        "ptrace": 117, "unshare": 97, "setns": 268, "mount": 40, "chroot": 51, "bpf": 280, "keyctl": 219,
        "io_uring_setup": 425, "perf_event_open": 241, "userfaultfd": 282, "process_vm_readv": 270, "pidfd_open": 434,
        "pidfd_getfd": 438, "execveat": 281, "clone3": 435, "open_by_handle_at": 265, "personality": 92,
        "init_module": 105, "capset": 91, "pivot_root": 41, "sendmmsg": 269,
    },
}  # fmt: skip


def call(name, *arguments):
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[MACHINE][name]), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def prepare():
    return None


def compile(wasm):  # noqa: A001
    return wasm


def run(prepared, spec, module, started):
    started()
    name, about = spec["args"][0], json.loads(spec["args"][1])
    about["directories"] = [mount["directory"] for mount in spec.get("mounts") or ()]
    about["module"] = module
    about["sockets"] = spec.get("sockets")
    if name == "wait":
        time.sleep(1000)
    os.write(1, came_of(name, about))
    return 0, ""


def came_of(name, about):
    try:
        result = {"done": DEEDS[name](about)}
    except OSError as error:
        result = errno.errorcode[error.errno]
    return json.dumps(result).encode() + b"\n"


STACK = 1024 * 1024


def load(prepared, module):
    return f"/proc/self/fd/{os.open(module, os.O_RDONLY)}"


class Guest:
    """The same in a dense worker, whose other threads are as much in its hands."""

    def __init__(self, prepared, code, spec, stdout, stderr):
        self.name, self.about = spec["args"][0], json.loads(spec["args"][1])
        opened = [os.open(mount["directory"], os.O_RDONLY | os.O_DIRECTORY) for mount in spec["mounts"]]
        self.about |= {"directories": [f"/proc/self/fd/{number}" for number in opened], "module": code}
        self.about["sockets"] = spec["sockets"]
        self.out = os.open(stdout, os.O_WRONLY)

    def interrupt(self):
        pass

    def run(self, started):
        started(0)
        os.write(self.out, came_of(self.name, self.about))
        os.close(self.out)
        return 0, "", False


def read(path):
    with open(path, "rb") as file:
        return file.read(200).decode("latin-1")


def opened(path, flags):
    os.close(os.open(path, flags, 0o600))


def each(paths, deed):
    """Those for which the deed is possible."""
    found = []
    for path in paths:
        try:
            deed(path)
            found.append(path)
        except OSError:
            continue
    return found


def fork(about):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def other_architecture(about):
    """getpid as a 32-bit program asks for it."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def peek(pid):
    """Memory of another process, by its maps."""
    local, remote = ctypes.create_string_buffer(8), 0x400000
    vectors = struct.pack("QQ", ctypes.addressof(local), 8), struct.pack("QQ", remote, 8)
    return call("process_vm_readv", pid, vectors[0], 1, vectors[1], 1, 0)


def outside_by_link(about):
    """Through a symbolic link that the guest has made in a directory that it may write."""
    mount = about["directories"][1]
    links = {"absolute": "/etc/passwd", "relative": "../" * 20 + "etc/passwd", "state": f"{about['state']}/shim.log"}
    for name, target in links.items():
        os.symlink(target, f"{mount}/{name}", dir_fd=0)
    return each([f"{mount}/{name}" for name in links], read)


def to_shim(about):
    """What a guest may tell the shim is about itself; what else it sends is of no use to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(3)) as control:
        files = array.array("i", [os.open(f"{about['directories'][0]}/file", os.O_RDONLY)])
        wrong = b'{"started": []}', b'{"op": "shutdown", "force": true}', b'{"pid": 1}', b'{"ended": {}}'
        for message in (b"", b"{", b"[]", b"\xff" * 60000, *wrong):
            for ancillary in ([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]):
                try:
                    if ancillary:
                        control.sendmsg([message], ancillary, socket.MSG_NOSIGNAL)
                    else:
                        os.write(control.fileno(), message)
                except OSError as error:
                    if error.errno != errno.EPERM:
                        return "said"  # it has stopped listening
    return "said"


def asked(about, operation, **fields):
    """What the broker gives, as a socket if it is one; where it refuses, that is the error."""
    answer = about["sockets"].ask(operation, **fields)
    if answer.error:
        raise OSError(answer.error, answer.why)
    if not answer.fds:
        return answer.fields
    kind = socket.SOCK_DGRAM if fields.get("protocol") == "UDP" else socket.SOCK_STREAM
    return socket.socket(socket.AF_INET, kind, 0, fileno=answer.fds[0])


def bound(about):
    """A socket that is bound and not connected."""
    return asked(about, "listen", port=about["port"])


def datagrams(about):
    """A connected socket of UDP."""
    return asked(about, "connect", host=about["granted"][0], port=about["granted"][1], protocol="UDP")


def dialled(about):
    with datagrams(about) as sock:
        return os.write(sock.fileno(), b"x")


def sendmmsg(sock, address, flags):
    """One message to this address."""
    data = ctypes.create_string_buffer(b"out", 3)
    where = struct.pack("=H", socket.AF_INET) + struct.pack(">H", address[1]) + socket.inet_aton(address[0]) + bytes(8)
    name = ctypes.create_string_buffer(where)
    vector = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(data), 3))
    header = struct.pack("QIIQQQQiiII", ctypes.addressof(name), 16, 0, ctypes.addressof(vector), 1, 0, 0, 0, 0, 0, 0)
    return call("sendmmsg", sock.fileno(), header, 1, flags)


def passed_on(about):
    """The control socket, given to the broker itself and to the shim."""
    control = about["sockets"].fileno()
    given = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [control]))]
    for number in (control, 3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(number)) as sock:
            sock.sendmsg([b"{}"], given)


def rubbish(about):
    """The broker reads anything; what it says is not for this, and it serves the next request."""
    control = about["sockets"].fileno()
    wrong = (b"{", b"[]", b"\xff" * 4000, b"x" * 10000, b'{"n": -1}', b'{"n": 1e9, "ask": "listen"}', b"[" * 4000)
    for packet in (*wrong, b'{"n": 7, "ask": {}}', b'{"n": 8, "ask": "listen", "port": "1"}', b'{"add": "x"}'):
        os.write(control, packet)
    bound(about).close()
    return "served"


DEEDS = {
    # other programs and processes
    "execve": lambda about: os.execv("/bin/sh", ["sh", "-c", "echo out"]),
    "execveat": lambda about: call("execveat", -100, b"/bin/true\0", None, None, 0),
    "fork": fork,
    "clone3": lambda about: call("clone3", bytes(88), 88),
    "ptrace the shim": lambda about: call("ptrace", 16, about["shim"], 0, 0),
    "ptrace a sibling": lambda about: call("ptrace", 16, about["sibling"], 0, 0),
    "read the shim's memory": lambda about: peek(about["shim"]),
    "read a sibling's memory": lambda about: peek(about["sibling"]),
    "kill the shim": lambda about: os.kill(about["shim"], signal.SIGTERM),
    "kill a sibling": lambda about: os.kill(about["sibling"], signal.SIGTERM),
    "kill everybody": lambda about: os.kill(-1, signal.SIGTERM),
    "kill the group": lambda about: os.kill(0, signal.SIGCONT),
    "signal a sibling by its thread": lambda about: LIBC.tgkill(about["sibling"], about["sibling"], 15) and fail(),
    "take a sibling's descriptor": lambda about: call("pidfd_getfd", call("pidfd_open", about["sibling"], 0), 3, 0),
    "have a sibling signalled": lambda about: fcntl.fcntl(0, fcntl.F_SETOWN, about["sibling"]),
    # the network
    "socket": lambda about: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "unix socket": lambda about: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    "netlink": lambda about: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "listen at a granted port": lambda about: bound(about).listen(),
    "dial what was granted": dialled,
    "rubbish to the broker": rubbish,
    "listen at another port": lambda about: asked(about, "listen", port=about["port"] + 1),
    "listen for datagrams": lambda about: asked(about, "listen", port=about["port"], protocol="UDP"),
    "dial another port": lambda about: asked(about, "connect", host=about["granted"][0], port=about["other"][1]),
    "dial another address": lambda about: asked(about, "connect", host=about["other"][0], port=about["other"][1]),
    "dial the node": lambda about: asked(about, "connect", host="127.0.0.1", port=about["other"][1]),
    "dial a link-local address": lambda about: asked(about, "connect", host="169.254.169.254", port=80),
    "look up another name": lambda about: asked(about, "resolve", name="example.com"),
    "do what the broker does not": lambda about: asked(about, "bind", port=about["port"]),
    "connect what is bound": lambda about: bound(about).connect(tuple(about["other"])),
    "bind what is bound": lambda about: bound(about).bind((about["granted"][0], 0)),
    "connect again": lambda about: datagrams(about).connect(tuple(about["other"])),
    "sendto": lambda about: datagrams(about).sendto(b"out", tuple(about["other"])),
    "sendmsg to another address": lambda about: datagrams(about).sendmsg([b"out"], [], 0, tuple(about["other"])),
    "sendmmsg to another address": lambda about: sendmmsg(datagrams(about), about["other"], 0),
    "send from a bound socket": lambda about: asked(about, "listen", port=about["port"], protocol="UDP").sendmsg(
        [b"out"], [], 0, tuple(about["other"])
    ),
    "MSG_FASTOPEN": lambda about: bound(about).sendmsg([b"out"], [], 0x20000000, tuple(about["other"])),
    "MSG_FASTOPEN by sendto": lambda about: bound(about).sendto(b"out", 0x20000000, tuple(about["other"])),
    "MSG_FASTOPEN by sendmmsg": lambda about: sendmmsg(bound(about), about["other"], 0x20000000),
    "setsockopt": lambda about: bound(about).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
    "mark packets": lambda about: bound(about).setsockopt(socket.SOL_SOCKET, 36, 1),
    "take an interface": lambda about: bound(about).setsockopt(socket.SOL_SOCKET, 25, b"lo"),
    "filter a socket": lambda about: bound(about).setsockopt(socket.SOL_SOCKET, 26, bytes(16)),
    "steer the routing": lambda about: bound(about).setsockopt(socket.IPPROTO_IP, 4, bytes(8)),
    "getsockopt": lambda about: bound(about).getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
    "pass the control socket on": passed_on,
    "socketpair": lambda about: socket.socketpair()[0].close(),
    # rights
    "setuid": lambda about: os.setresuid(0, 0, 0),
    "setgid": lambda about: os.setresgid(0, 0, 0),
    "setgroups": lambda about: os.setgroups([0]),
    "capset": lambda about: call("capset", struct.pack("=Ii", 0x20080522, 0), bytes([255]) * 24),
    "unshare": lambda about: call("unshare", 0x10000000),
    "setns": lambda about: call("setns", 0, 0),
    "mount": lambda about: call("mount", b"none\0", b"/tmp\0", b"tmpfs\0", 0, None),
    "chroot": lambda about: os.chroot("/"),
    "pivot_root": lambda about: call("pivot_root", b"/\0", b"/\0"),
    "raise limits": lambda about: LIBC.setrlimit(7, struct.pack("QQ", 1 << 30, 1 << 30)) and fail(),
    "outlive the shim": lambda about: LIBC.prctl(1, 0, 0, 0, 0) and fail(),
    "be traceable": lambda about: LIBC.prctl(4, 1, 0, 0, 0) and fail(),
    # the kernel
    "bpf": lambda about: call("bpf", 0, bytes(64), 64),
    "io_uring": lambda about: call("io_uring_setup", 4, bytes(120)),
    "perf": lambda about: call("perf_event_open", bytes(112), 0, -1, -1, 0),
    "userfaultfd": lambda about: call("userfaultfd", 0),
    "keyring": lambda about: call("keyctl", 0, -3, 1),
    "open by handle": lambda about: call("open_by_handle_at", -100, bytes(16), 0),
    "kernel module": lambda about: call("init_module", bytes(8), 8, b"\0"),
    "personality": lambda about: call("personality", 0x0040000),
    "x32": lambda about: LIBC.syscall(ctypes.c_long(0x40000000 | 39)),
    "32 bit": other_architecture,
    "type at the terminal": lambda about: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
    # files that are not the container's
    "read /etc/passwd": lambda about: read("/etc/passwd"),
    "list /": lambda about: os.listdir("/"),
    "list /proc": lambda about: os.listdir("/proc"),
    "write /tmp": lambda about: opened(f"/tmp/wasmlet-{os.getpid()}", os.O_WRONLY | os.O_CREAT),
    "mkdir in /tmp": lambda about: mkdirat(f"/tmp/wasmlet-{os.getpid()}"),
    "own memory by path": lambda about: opened("/proc/self/mem", os.O_RDWR),
    "own descriptors by path": lambda about: os.listdir("/proc/self/fd"),
    "others' memory by path": lambda about: each(
        [f"/proc/{pid}/mem" for pid in about["pids"]], lambda path: opened(path, os.O_RDONLY)
    ),
    "others' variables": lambda about: each([f"/proc/{pid}/environ" for pid in about["pids"]], read),
    "others' descriptors": lambda about: each(
        [f"/proc/{pid}/fd/{number}" for pid in about["pids"] for number in range(16)],
        lambda path: opened(path, os.O_RDONLY),
    ),
    "others' directories": lambda about: each(
        [f"/proc/{pid}/{at}" for pid in about["pids"] for at in ("cwd", "root", "fd")], os.listdir
    ),
    "list the state directory": lambda about: os.listdir(about["state"]),
    "read a record": lambda about: each(about["records"], read),
    "write a record": lambda about: each(about["records"], lambda path: opened(path, os.O_WRONLY)),
    "write the log": lambda about: each(about["logs"], lambda path: opened(path, os.O_WRONLY)),
    "read a sibling's mount": lambda about: read(about["secret"]),
    "write a sibling's mount": lambda about: opened(about["secret"], os.O_WRONLY),
    "change the compiled module": lambda about: opened(about["module"], os.O_RDWR),
    "a device": lambda about: os.mknod(f"{about['directories'][1]}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "a device that is there": lambda about: opened("/dev/tty", os.O_RDWR),
    # the container's mounts: [0] is read-only, [1] is not
    "read a mount": lambda about: read(f"{about['directories'][0]}/file"),
    "write a mount": lambda about: opened(f"{about['directories'][1]}/new", os.O_WRONLY | os.O_CREAT),
    "rename in a mount": lambda about: (
        opened(f"{about['directories'][1]}/old", os.O_WRONLY | os.O_CREAT),
        mkdirat(f"{about['directories'][1]}/below"),
        rename(f"{about['directories'][1]}/old", f"{about['directories'][1]}/below/new"),
    )[2],
    "write a read-only mount": lambda about: opened(f"{about['directories'][0]}/file", os.O_WRONLY),
    "truncate in a read-only mount": lambda about: opened(f"{about['directories'][0]}/file", os.O_WRONLY | os.O_TRUNC),
    "truncate by path in a read-only mount": lambda about: os.truncate(f"{about['directories'][0]}/file", 0),
    "create in a read-only mount": lambda about: opened(f"{about['directories'][0]}/new", os.O_WRONLY | os.O_CREAT),
    "unlink in a read-only mount": lambda about: unlink(f"{about['directories'][0]}/file"),
    "mkdir in a read-only mount": lambda about: mkdirat(f"{about['directories'][0]}/new"),
    "symlink in a read-only mount": lambda about: os.symlink("file", f"{about['directories'][0]}/new", dir_fd=0),
    "reopen a read-only mount": lambda about: opened(
        f"/proc/self/fd/{os.open(about['directories'][0] + '/file', os.O_RDONLY)}", os.O_RDWR
    ),
    "rename out of a read-only mount": lambda about: rename(
        f"{about['directories'][0]}/file", f"{about['directories'][1]}/taken"
    ),
    "link out of a read-only mount": lambda about: link(
        f"{about['directories'][0]}/file", f"{about['directories'][1]}/linked"
    ),
    "mode of a file": lambda about: os.chmod(f"{about['directories'][1]}/own", 0o4777),
    "owner of a file": lambda about: os.chown(f"{about['directories'][1]}/own", 0, 0),
    "climb out of a mount": lambda about: read(about["directories"][0] + "/.." * 20 + "/etc/passwd"),
    "link from outside": lambda about: link("/etc/passwd", f"{about['directories'][1]}/linked"),
    "rename out of a mount": lambda about: rename(f"{about['directories'][1]}/own", f"{about['state']}/own"),
    "outside by link": outside_by_link,
    "talk to the shim": to_shim,
    # what has to work
    "a thread": lambda about: thread(),
    "time and randomness": lambda about: bool(time.time() and os.urandom(8)),
    "descriptors": lambda about: each(range(1024), os.fstat),
    "files open at once": lambda about: many(f"{about['directories'][0]}/file"),
}


def fail():
    raise OSError(ctypes.get_errno(), "")


# The calls that there are on every architecture; Python's own take older ones on x86_64.
rename = functools.partial(os.rename, src_dir_fd=0, dst_dir_fd=0)
link = functools.partial(os.link, src_dir_fd=0, dst_dir_fd=0)
unlink = functools.partial(os.unlink, dir_fd=0)
mkdirat = functools.partial(os.mkdir, dir_fd=0)


def thread():
    import _thread

    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.release, ())
    return lock.acquire(timeout=30)


def many(path):
    opened = []
    try:
        while True:
            opened.append(os.open(path, os.O_RDONLY))
    except OSError:
        return len(opened)
