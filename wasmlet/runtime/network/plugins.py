"""Runs CNI plugins: programs that read a network configuration, set up a pod's network, and print the result as JSON.

The rules come from the CNI specification, sections 2 to 5. A plugin is a third-party program. So its output and its
run time are limited, and processes that it leaves behind are ended.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network.conflist import Conflist
from wasmlet.runtime.network.network import NetworkError

Verb = Literal["ADD", "CHECK", "DEL"]
INTERFACE = "eth0"
MAX_OUTPUT = 1024 * 1024
"""Bytes that a plugin may say."""
SECONDS = 60.0
"""How long one plugin may take."""
REAPED_AFTER_SECONDS = 0.02
"""How long a plugin that has ended stays unreaped. The kernel says that it has ended while it still takes away what
`/proc` had of its threads, and whoever reaps it before that is done spins: for two milliseconds on two busy cores."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Attachment:
    """A pod's place in a network.

    Attributes:
        namespace: path of its network namespace; "" where that is gone already.
        runtime: by capability, what it asks for.
    """

    pod: PodKey
    namespace: str
    runtime: Mapping[str, Any] = attrs.field(factory=dict)

    def variables(self, verb: Verb, directories: Sequence[Path]) -> dict[str, str]:
        """The environment of a plugin."""
        pod = self.pod
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": pod.namespace,
            "K8S_POD_NAME": pod.name,
            "K8S_POD_INFRA_CONTAINER_ID": pod.uid,
            "K8S_POD_UID": pod.uid,
        }
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod.uid,
            "CNI_NETNS": self.namespace,
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in arguments.items()),
            "CNI_PATH": ":".join(map(str, directories)),
            "PATH": os.environ.get("PATH") or PATH,
        }


class Plugins:
    """The plugins of some directories.

    Args:
        directories: where they are, the first one first.
    """

    def __init__(self, directories: Sequence[Path], clock: Clock) -> None:
        self._directories = tuple(directories)
        self._clock = clock
        self._ended: dict[int, asyncio.TimerHandle] = {}
        """Plugins that are to be reaped."""

    def missing(self, network: Conflist) -> str:
        """The first plugin of a network that is not there; "" where all are. Blocks."""
        return next((kind for plugin in network.plugins if not self.has(kind := str(plugin["type"]))), "")

    def has(self, kind: str) -> bool:
        """Whether there is such a plugin. Blocks."""
        return self._find(kind) is not None

    async def add(self, network: Conflist, attachment: Attachment) -> Mapping[str, Any]:
        """Call the chain's `ADD`; the last plugin's result.

        Raises:
            NetworkError: one of them failed. Nothing is undone: `delete` does that.
        """
        result: Mapping[str, Any] | None = None
        for plugin in network.plugins:
            result = await self._call("ADD", network.config(plugin, attachment.runtime, result), attachment)
        assert result is not None
        addresses(result)
        return result

    async def check(self, network: Conflist, attachment: Attachment, result: Mapping[str, Any]) -> None:
        """Call the chain's `CHECK`.

        Raises:
            NetworkError: something of what `ADD` made is not there any more.
        """
        for plugin in network.plugins if network.check else ():
            await self._call("CHECK", network.config(plugin, attachment.runtime, result), attachment)

    async def delete(self, network: Conflist, attachment: Attachment, result: Mapping[str, Any] | None) -> None:
        """Call the chain's `DEL`, the last plugin first. It is no error that there is nothing to delete.

        Raises:
            NetworkError: one of them failed; the others were called all the same.
        """
        # Before 0.4.0 a plugin is not told the result at its end.
        previous = result if network.version not in ("0.3.0", "0.3.1") else None
        failed: NetworkError | None = None
        for plugin in reversed(network.plugins):
            try:
                await self._call("DEL", network.config(plugin, attachment.runtime, previous), attachment)
            except NetworkError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _find(self, kind: str) -> Path | None:
        found = (directory / kind for directory in self._directories)
        return next((file for file in found if os.access(file, os.X_OK) and file.is_file()), None)

    async def _call(self, verb: Verb, config: Mapping[str, Any], attachment: Attachment) -> Mapping[str, Any]:
        kind = str(config["type"])
        program = self._find(kind)  # on the loop, as its start is, which looks the file up, too
        if program is None:
            places = ", ".join(map(str, self._directories)) or "no directory"
            raise NetworkError(f"CNI plugin {kind}: not found in {places}; set --cni-bin-dir")
        code, output = await self._run(program, verb, config, attachment)
        if code != 0:
            raise NetworkError(f"CNI plugin {kind}: {verb} failed: {_complaint(code, output)}")
        if verb != "ADD":
            return {}
        try:
            found = json.loads(output)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise NetworkError(f"CNI plugin {kind}: expected a result as JSON, found {_shown(output)}")
        return found

    async def _run(
        self, program: Path, verb: Verb, config: Mapping[str, Any], attachment: Attachment
    ) -> tuple[int, bytes]:
        """Run a plugin to its end; its exit status, and what it said."""
        # Not by asyncio: its wait for the end would wait for whoever else has the pipes open, too.
        reader, writer = os.pipe2(os.O_CLOEXEC)
        asked = os.memfd_create("config", os.MFD_CLOEXEC)
        try:
            os.pwrite(asked, json.dumps(config).encode(), 0)
            pid = _started(program, attachment.variables(verb, self._directories), asked, writer)
        except OSError as error:
            os.close(reader)
            raise NetworkError(f"CNI plugin {program.name}: cannot be run: {error.strerror}") from error
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            os.close(asked)
        ended, said = _end_of(pid), _Said(reader)
        patience = asyncio.ensure_future(self._clock.sleep(SECONDS))
        try:
            await asyncio.wait([said.all, patience], return_when=asyncio.FIRST_COMPLETED)
            if said.all.done() and not said.too_much:
                await asyncio.wait([ended, patience], return_when=asyncio.FIRST_COMPLETED)
            late = not said.too_much and not (said.all.done() and ended.done())
        finally:
            said.close()
            patience.cancel()
            # It is not reaped yet, so its number is no other process's. What it has started ends with it.
            os.killpg(pid, signal.SIGKILL)
            try:
                await _whoever_cancels(ended, patience)
            finally:
                status = self._status_of(pid)
        if late:
            raise NetworkError(f"CNI plugin {program.name}: {verb} took longer than {SECONDS:g} seconds")
        if said.too_much:
            raise NetworkError(f"CNI plugin {program.name}: said more than {MAX_OUTPUT} bytes")
        return status, bytes(said.output)

    def _status_of(self, pid: int) -> int:
        """The exit status of a child that has ended. It is reaped later."""
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert found is not None
        self._ended[pid] = asyncio.get_running_loop().call_later(REAPED_AFTER_SECONDS, self._reap, pid)
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _reap(self, pid: int) -> None:
        self._ended.pop(pid).cancel()
        os.waitpid(pid, 0)

    def close(self) -> None:
        """Reap those that have ended; no other one is running."""
        for pid in list(self._ended):
            self._reap(pid)


def _started(program: Path, variables: Mapping[str, str], asked: int, writer: int) -> int:
    """Start a plugin, in a session of its own and in this process's working directory. Returns its process id.

    uvloop's and asyncio's ways fork this process, which costs more than some plugins take. This one does not; it takes
    less than a millisecond, in which Python holds its lock in any case.
    """
    return os.posix_spawn(
        program,
        [str(program)],
        variables,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, asked, 0),
            (os.POSIX_SPAWN_DUP2, writer, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setsid=True,
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
    )


class _Said:
    """What comes out of a pipe until its end, or more than `MAX_OUTPUT` bytes.

    Attributes:
        all: done when nothing more is to come.
    """

    def __init__(self, reader: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self.output = bytearray()
        self.all: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(reader, False)
        self._loop.add_reader(reader, self._more)

    @property
    def too_much(self) -> bool:
        return len(self.output) > MAX_OUTPUT

    def _more(self) -> None:
        try:
            piece = os.read(self._reader, 65536)
        except BlockingIOError:
            return
        self.output += piece
        if not piece or self.too_much:
            self._loop.remove_reader(self._reader)
            self.all.set_result(None)

    def close(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)


def _end_of(pid: int) -> asyncio.Future[Any]:
    """Done when a child of this process has ended; it is to be reaped then. To be waited for in any case."""
    loop = asyncio.get_running_loop()
    try:
        watch = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3
        return asyncio.ensure_future(in_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT))
    ended = loop.create_future()

    def tell() -> None:
        loop.remove_reader(watch)
        os.close(watch)
        ended.set_result(None)

    loop.add_reader(watch, tell)
    return ended


async def _whoever_cancels(*futures: asyncio.Future[Any]) -> None:
    """Wait until all are done; where this is cancelled meanwhile, that is raised then."""
    cancelled = False
    while not all(future.done() for future in futures):
        try:
            await asyncio.wait(futures)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def end_orphans(namespaces: Path) -> None:
    """End plugins that work on namespaces of this directory for a process that is gone. Blocks, for some milliseconds.

    They go on when that process is killed. What one of them does after `DEL` would be left for good.
    """
    mark = os.fsencode(f"CNI_NETNS={namespaces}/")
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or not any(one.startswith(mark) for one in _variables(entry)):
                continue
            pid = int(entry.name)
            if os.getsid(pid) == pid and _parent(entry) != os.getpid():
                _end_group(pid)
        except OSError:  # it has ended meanwhile
            continue


def _end_group(pid: int) -> None:
    """End a process and its group; return when it has ended. Blocks."""
    try:
        watch = os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.killpg(pid, signal.SIGKILL)  # a kernel before 5.3: that takes no more than a moment
        return
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        os.killpg(pid, signal.SIGKILL)
        poll.poll(SECONDS * 1000)
    finally:
        os.close(watch)


def _variables(process: Path) -> list[bytes]:
    return (process / "environ").read_bytes().split(b"\0")


def _parent(process: Path) -> int:
    return int((process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])


def addresses(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The pod's addresses in a result: those of interfaces in its namespace, the main one first.

    Raises:
        NetworkError: it has none.
    """
    found: list[str] = []
    try:
        interfaces = result.get("interfaces") or []
        for ip in result.get("ips") or []:
            index = ip.get("interface")
            if index is None or interfaces[index].get("sandbox"):
                found.append(str(ipaddress.ip_interface(ip["address"]).ip))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NetworkError(f"expected addresses in the result of a CNI plugin, found {_shown(result)}") from error
    if not found:
        raise NetworkError("the CNI plugins gave the pod no address")
    return tuple(dict.fromkeys(found))


def _complaint(code: int, output: bytes) -> str:
    """Why a plugin failed, in its own words if it has any."""
    try:
        said = json.loads(output)
        words = ": ".join(str(said[name]) for name in ("msg", "details") if said.get(name))
    except (ValueError, RecursionError, AttributeError, TypeError):
        words = ""
    return words[:500] or f"exit status {code}, and no reason that can be read: {_shown(output)}"


def _shown(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return repr(text[:200]) if text else "nothing"
