"""CNI network configuration lists: finds one, parses it, and makes the configuration for each plugin.

The rules come from the CNI specification 1.0.0 and its library: the first file of a directory, by name, counts; the
file of a single plugin is a list with one entry; a plugin's `capabilities` select what it gets of `runtimeConfig`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.errors import ConfigError

SUFFIXES = (".conflist", ".conf", ".json")
MAX_BYTES = 1024 * 1024
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
PORT_MAPPINGS = "portMappings"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""As plugins take it."""


@attrs.frozen
class Conflist:
    """One network.

    Attributes:
        name, version: of the list, which every plugin is told.
        plugins: in the order in which they are called for `ADD`.
        check: whether `CHECK` may be called: from version 0.4.0 on, unless the list says otherwise.
        source: the file that it was read from, for messages; "" for the built-in one.
    """

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    check: bool = True
    source: str = ""

    @property
    def maps_ports(self) -> bool:
        """Whether one of the plugins sees to host ports."""
        return any((plugin.get("capabilities") or {}).get(PORT_MAPPINGS) for plugin in self.plugins)

    def as_raw(self) -> Mapping[str, Any]:
        """As a file has it, to be read again by `parse`."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "disableCheck": not self.check,
            "plugins": list(self.plugins),
        }

    def config(
        self, plugin: Mapping[str, Any], runtime: Mapping[str, Any], previous: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        """What one of the plugins reads from its standard input.

        Args:
            runtime: by capability, what the pod asks for.
            previous: the result of the plugin before; None for the first one.
        """
        capabilities = plugin.get("capabilities") or {}
        found = {name: value for name, value in plugin.items() if name != "capabilities"}
        found |= {"name": self.name, "cniVersion": self.version}
        asked = {name: value for name, value in runtime.items() if capabilities.get(name)}
        if asked:
            found["runtimeConfig"] = asked
        if previous is not None:
            found["prevResult"] = previous
        return found


def files(directory: Path) -> Sequence[Path]:
    """The files of a directory that are networks by their names, the first one first. Blocks."""
    try:
        return [directory / name for name in sorted(os.listdir(directory)) if os.path.splitext(name)[1] in SUFFIXES]
    except OSError:
        return ()


def find(directory: Path) -> Conflist | None:
    """The network of a directory: its first file by name; None where there is none. Blocks.

    Raises:
        ConfigError: the first one is no network.
    """
    found = files(directory)
    return read(found[0]) if found else None


def read(file: Path) -> Conflist:
    """The network of a file. Blocks.

    Raises:
        ConfigError: it is none; the message names the file and what is wrong.
    """
    try:
        # A pipe would be waited for without end.
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise ConfigError(f"CNI network {file}: expected a regular file")
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"CNI network {file}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"CNI network {file}: expected at most {MAX_BYTES} bytes")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"CNI network {file}: expected JSON: {str(error)[:200]}") from error
    return parse(raw, str(file))


def parse(raw: object, source: str = "") -> Conflist:
    """The network that a file's content is.

    Raises:
        ConfigError: it is none.
    """
    where = f"CNI network {source or 'of a pod'}"
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: expected an object")
    plugins = raw.get("plugins") if "plugins" in raw else [raw]
    if not isinstance(plugins, Sequence) or isinstance(plugins, str) or not plugins or len(plugins) > 32:
        raise ConfigError(f"{where}: expected plugins, a list of 1 to 32")
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, Mapping) else None
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise ConfigError(f"{where}: expected plugins with a type, the name of a program, found {str(plugin)[:80]}")
        if not isinstance(plugin.get("capabilities") or {}, Mapping):
            raise ConfigError(f"{where}: expected the capabilities of {kind} as an object")
    name, version = raw.get("name"), raw.get("cniVersion", "0.3.1")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits and '_.-', found {str(name)[:80]!r}")
    if version not in VERSIONS:
        raise ConfigError(f"{where}: expected cniVersion {', '.join(VERSIONS)}, found {str(version)[:20]!r}")
    check = version not in VERSIONS[:2] and str(raw.get("disableCheck", False)).lower() not in ("true", "1")
    return Conflist(name, version, tuple(plugins), check, source)


def built_in(cidrs: Sequence[str], data: Path, *, maps_ports: bool) -> Conflist:
    """A bridge of this node alone, for machines that have plugins and no network.

    Args:
        cidrs: what pods' addresses are taken from.
        data: where host-local keeps which of them are taken.
        maps_ports: whether there is a plugin for host ports.
    """
    ranges = [[{"subnet": cidr}] for cidr in cidrs]
    routes = [{"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in cidrs]
    bridge: Mapping[str, Any] = {
        "type": "bridge",
        "bridge": "wasmlet0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "dataDir": str(data), "ranges": ranges, "routes": routes},
    }
    portmap: Mapping[str, Any] = {"type": "portmap", "capabilities": {PORT_MAPPINGS: True}}
    return Conflist("wasmlet", "0.4.0", (bridge, *((portmap,) if maps_ports else ())))
