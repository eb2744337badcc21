"""Runs CNI plugins: programs that read a network configuration, set up a pod's network, and print the result as JSON.

The rules come from the CNI specification, sections 2 to 5. A plugin is a third-party program. So its output and its
run time are limited, and processes that it leaves behind are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of, ready
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network.conflist import Conflist
from wasmlet.runtime.network.network import NetworkError

Verb = Literal["ADD", "CHECK", "DEL"]
INTERFACE = "eth0"
MAX_OUTPUT = 1024 * 1024
"""Bytes that a plugin may say."""
SECONDS = 60.0
"""How long one plugin may take."""
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
        program = await asyncio.to_thread(self._find, kind)
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
        # Not asyncio's pipes: its wait for the end would wait for whoever else has them open, too.
        reader, writer = os.pipe2(os.O_CLOEXEC)
        asked = os.memfd_create("config", os.MFD_CLOEXEC)
        try:
            os.pwrite(asked, json.dumps(config).encode(), 0)
            process = await asyncio.create_subprocess_exec(
                program,
                stdin=asked,
                stdout=writer,
                stderr=asyncio.subprocess.DEVNULL,
                env=attachment.variables(verb, self._directories),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            os.close(reader)
            raise NetworkError(f"CNI plugin {program.name}: cannot be run: {error.strerror}") from error
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            os.close(asked)
        output: bytes | None = None

        async def listen() -> None:
            nonlocal output
            output = await _said(reader)
            if len(output) <= MAX_OUTPUT:
                await process.wait()

        try:
            await first_of(listen(), self._clock.sleep(SECONDS))
            late = output is None or (process.returncode is None and len(output) <= MAX_OUTPUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            os.close(reader)
            await _reap(process)
        if late or output is None:
            raise NetworkError(f"CNI plugin {program.name}: {verb} took longer than {SECONDS:g} seconds")
        if len(output) > MAX_OUTPUT:
            raise NetworkError(f"CNI plugin {program.name}: said more than {MAX_OUTPUT} bytes")
        return process.returncode or 0, output


async def _said(reader: int) -> bytes:
    """What comes out of a pipe until its end, or more than `MAX_OUTPUT` bytes."""
    os.set_blocking(reader, False)
    loop, output = asyncio.get_running_loop(), b""
    while len(output) <= MAX_OUTPUT:
        try:
            piece = os.read(reader, 65536)
        except BlockingIOError:
            await ready(reader, loop.add_reader, loop.remove_reader)
            continue
        if not piece:
            break
        output += piece
    return output


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process that has ended or was killed, whoever cancels."""
    waiting = asyncio.ensure_future(process.wait())
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


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
