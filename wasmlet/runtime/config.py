"""The settings of all providers that run WebAssembly, and the values that are computed from them."""

from __future__ import annotations

from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.model.quantity import Quantity
from wasmlet.options import option
from wasmlet.runtime.files.hostpath import HostPaths
from wasmlet.runtime.files.pod_users import Range
from wasmlet.runtime.images.compile_process import CompileLimits
from wasmlet.runtime.images.registries import ImageConfig
from wasmlet.runtime.network.config import NetworkConfig

MIN_LOG_SIZE = 16 * 1024
"""Bytes: room for one log entry. With less, each entry would be in a file of its own."""

_LEAST_COMPILE_MEMORY = 64 * 1024 * 1024
"""Bytes: about what a compiling engine takes for itself."""


@attrs.frozen
class RuntimeConfig(ImageConfig, NetworkConfig):
    """The settings of every provider that runs WebAssembly."""

    engine: tuple[str, ...] = option(
        (), help="An engine that the node offers beside the provider's own (wasmer); may be repeated."
    )
    engine_python: Path | None = option(
        None, help="The interpreter of engines that need one of their own (wasmer: a Python 3.10)."
    )
    wascc_issuers: tuple[str, ...] = option(
        (), help="Public key (A...) of an account whose actors the engine wascc runs; may be repeated. None: any."
    )
    allow_local_modules: bool = option(False, help="Let pods run modules from this node's disk (image: file:///path).")
    explain_local_modules: bool = option(
        False, help="Tell pods why a file of this disk is no module, for a machine that is its pods' owner's."
    )
    module_dir: Path | None = option(
        None, help="Directory that relative images (file://./x.wasm) are in, and do not leave."
    )
    max_module_bytes: int = option(2**28, least=8, help="The largest module that is accepted, in bytes.")
    compile_timeout: float = option(300.0, least=0.001, help="How long compiling one module may take, in seconds.")
    compile_memory: str = option("2Gi", help="The most memory that compiling one module may take.")
    allow_host_path: tuple[str, ...] = option(
        (), help="Directory of this node that pods may mount (hostPath), with all below it; may be repeated."
    )
    allow_storage_class: tuple[str, ...] = option(
        (), help="StorageClass whose volumes (hostPath, local, nfs) pods may mount wherever they lie; may be repeated."
    )
    pod_users: str = option(
        "2000000000-2099999999",
        help="FIRST-LAST: user ids of which each pod gets one of its own, where the node is root; or none.",
    )
    cgroups: bool = option(True, help="Hold the limits of pods by control groups, where this node may make such.")
    max_container_restart_period: float = option(
        300.0, least=1, most=300, help="The longest pause before a container that fails is restarted, in seconds."
    )
    container_log_max_size: str = option("10Mi", help="Size of a container's log file at which a new one is begun.")
    container_log_max_files: int = option(5, least=2, help="The most files of one container's log; 2 or more.")
    shim_idle_exit: float = option(60.0, least=1, help="After how long a worker that nobody needs ends.")

    def host_paths(self) -> HostPaths:
        """Which directories of the node pods may mount.

        Raises:
            ConfigError: a path is not absolute, or has `..` in it.
        """
        for path in self.allow_host_path:
            if not path.startswith("/") or ".." in path.split("/"):
                raise ConfigError(f"--allow-host-path: expected an absolute path without '..', found {path!r}")
        return HostPaths([Path(path) for path in self.allow_host_path])

    def users(self) -> Range | None:
        """The range of user ids for pods (`files.pod_users`); None if pods get no users of their own.

        Raises:
            ConfigError: `pod_users` is neither FIRST-LAST nor none.
        """
        return Range.parse(self.pod_users)

    def compile_limits(self) -> CompileLimits:
        """The limits of compiling one module.

        Raises:
            ConfigError: `compile_memory` is no quantity, or too small.
        """
        memory = _bytes("compile-memory", self.compile_memory, _LEAST_COMPILE_MEMORY)
        return CompileLimits(self.compile_timeout, memory, self.max_module_bytes)

    def log_limits(self) -> dict[str, int]:
        """The limits of each container's log, in the form that the shim's `run` takes (`wasmlet.worker.wire`).

        Raises:
            ConfigError: `container_log_max_size` is no quantity, or too small.
        """
        limit = _bytes("container-log-max-size", self.container_log_max_size, MIN_LOG_SIZE)
        return {"log_size": limit, "log_files": self.container_log_max_files}


def _bytes(name: str, text: str, least: int) -> int:
    try:
        found = Quantity.parse(text).units()
    except ValueError as error:
        raise ConfigError(f"{name}: expected a quantity such as 10Mi, found {text!r}; set it with --{name}") from error
    if found < least:
        raise ConfigError(f"{name}: expected {least} bytes or more, found {text}; set it with --{name}")
    return found
