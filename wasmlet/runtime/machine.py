"""The resources of this machine: CPU and memory, within the limits of this process's control group, and disk space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def capacity() -> dict[str, str]:
    """`cpu` in cores and `memory` in bytes, as quantities; reads a few small files of the kernel's."""
    cores = float(len(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for quota in _cpu_limits():
        cores = min(cores, quota)
    for limit in _memory_limits():
        memory = min(memory, limit)
    cpu = str(int(cores)) if cores == int(cores) else f"{int(cores * 1000)}m"
    return {"cpu": cpu, "memory": f"{memory // 1024}Ki"}


_IDENTITY = {
    "bootID": "/proc/sys/kernel/random/boot_id",
    "machineID": "/etc/machine-id",
    "systemUUID": "/sys/class/dmi/id/product_uuid",
}


def identity() -> dict[str, str]:
    """Those fields of `status.nodeInfo` that tell machines, and their boots, apart; "" for one that cannot be read."""
    return {field: next(iter(_words(Path(path))), "") for field, path in _IDENTITY.items()}


def disk(directory: Path) -> dict[str, str]:
    """`ephemeral-storage` in bytes, as a quantity: the size of the file system that the directory is on; may block."""
    found = os.statvfs(directory)
    return {"ephemeral-storage": f"{found.f_blocks * found.f_frsize // 1024}Ki"}


def _groups() -> Iterator[tuple[str, Path]]:
    """This process's control groups and all those above: the controllers (version 2: ""), and the directory."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        root = Path("/sys/fs/cgroup", controllers) if controllers else Path("/sys/fs/cgroup")
        directory = root / name.lstrip("/")
        while directory.is_relative_to(root):
            yield controllers, directory
            directory = directory.parent


def name_files() -> tuple[str, str]:
    """What the resolv.conf and the hosts file of this machine say; blocks."""
    return _text("/etc/resolv.conf"), _text("/etc/hosts")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _cpu_limits() -> Iterator[float]:
    for controllers, directory in _groups():
        if "cpu" in controllers.split(","):
            words = _words(directory / "cpu.cfs_quota_us") + _words(directory / "cpu.cfs_period_us")
        else:
            words = _words(directory / "cpu.max")
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            yield int(words[0]) / int(words[1])


def _memory_limits() -> Iterator[int]:
    for controllers, directory in _groups():
        name = "memory.limit_in_bytes" if "memory" in controllers.split(",") else "memory.max"
        words = _words(directory / name)
        if words and words[0].isdigit():
            yield int(words[0])
