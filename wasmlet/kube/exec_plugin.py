"""Credential plugins: programs that a kubeconfig names and that print a token, a certificate, or both.

The contract is client-go's (KEP-541): the plugin learns what it is asked for from `KUBERNETES_EXEC_INFO`, and answers
with an ExecCredential of the same version. A plugin that neither ends nor fails is ended here after a time. client-go
waits without end, but no user sits beside a node to press Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import attrs

from wasmlet.concurrency import reap
from wasmlet.errors import ConfigError
from wasmlet.kube.documents import Fields, read
from wasmlet.kube.grants import Granted
from wasmlet.kube.kubeconfig import Cluster, Exec

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
PLUGIN_SECONDS = 60.0
"""How long a plugin may take."""
LOGIN_SECONDS = 600.0
"""How long it may take where a user at a terminal may have to answer it."""
_MAX_ANSWER = 1 << 20
_MAX_SAID = 500
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d?):(\d\d):(\d\d)(?:[.,]\d+)?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
"""RFC 3339, and what Go takes for it."""


async def ask(plugin: Exec, cluster: Cluster) -> Granted:
    """Run the plugin and read what it grants.

    Args:
        cluster: whose credentials are wanted, with the contents of its CA; the plugin is told if it wants to know.

    Raises:
        ConfigError: it cannot be run, fails, or its answer cannot be used.
    """
    name = f"its credential plugin {plugin.command!r}"
    program = await asyncio.to_thread(_program, plugin)
    if program is None:
        raise ConfigError(f"{name} cannot be run: No such file or directory{_hint(plugin)}")
    check(plugin)
    interactive = plugin.interactive_mode != "Never" and _at_terminal()
    if plugin.interactive_mode == "Always" and not interactive:
        raise ConfigError(f"{name} wants to be answered (interactiveMode Always): standard input is no terminal")
    environment = {**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": _info(plugin, cluster, interactive)}
    try:
        code, answer, said = await _run([program, *plugin.args], environment, interactive)
    except TimeoutError:
        raise ConfigError(f"{name} did not end within {LOGIN_SECONDS if interactive else PLUGIN_SECONDS:g} s") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument or a variable
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{name} cannot be run: {reason}{_hint(plugin)}") from None
    if code != 0:
        raise ConfigError(f"{name} failed with {_ended(code)}{f': {said}' if said else ''}")
    if len(answer) > _MAX_ANSWER:
        raise ConfigError(f"{name} answered with more than {_MAX_ANSWER} bytes")
    try:
        return _granted(answer, plugin.api_version)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{name} gave an answer that cannot be used: {error}") from None


def check(plugin: Exec) -> None:
    """Check that the kubeconfig describes the plugin as it must.

    Raises:
        ConfigError: a field is missing or has a wrong value.
    """
    if not plugin.command:
        raise ConfigError("exec: its command is missing")
    if plugin.api_version not in VERSIONS:
        raise ConfigError(f"exec: expected apiVersion {' or '.join(VERSIONS)}, found {plugin.api_version!r}")
    if plugin.interactive_mode not in ("Never", "IfAvailable", "Always"):
        raise ConfigError(
            f"exec: expected interactiveMode Never, IfAvailable or Always, found {plugin.interactive_mode!r}"
        )
    if not all(name for name, _ in plugin.env):
        raise ConfigError("exec: expected a name for each variable in env, found one without")


def _program(plugin: Exec) -> str | None:
    """Where the program is. A bare name is looked for on our own PATH, whatever `env` has."""
    if not plugin.command or os.sep in plugin.command:
        return plugin.command
    return shutil.which(plugin.command)


def _hint(plugin: Exec) -> str:
    hint = " ".join("".join(c if c.isprintable() else " " for c in plugin.install_hint).split())
    return f"; {hint}" if hint else ""


def _at_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _info(plugin: Exec, cluster: Cluster, interactive: bool) -> str:
    spec: dict[str, object] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        # The CA is told in any case as data: the plugin may not see its file.
        told = attrs.evolve(cluster, authority_file="").raw()
        spec = {"cluster": {**told, "config": cluster.extension}, **spec}
    info = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}
    return json.dumps(info, separators=(",", ":")) + "\n"  # to the byte what client-go says


async def _run(command: list[str], environment: Mapping[str, str], interactive: bool) -> tuple[int, bytes, str]:
    """Exit code, standard output and the head of standard error; at a terminal the latter goes there."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=None if interactive else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if interactive else asyncio.subprocess.PIPE,
        # A group of its own can be ended as a whole. It would have no terminal, so not where one is needed.
        start_new_session=not interactive,
    )
    try:
        async with asyncio.timeout(LOGIN_SECONDS if interactive else PLUGIN_SECONDS), asyncio.TaskGroup() as group:
            answer = group.create_task(_head(process.stdout, _MAX_ANSWER + 1))
            said = group.create_task(_head(process.stderr, _MAX_SAID))
            code = group.create_task(process.wait())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            if interactive:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        await reap(process)
        raise
    text = said.result().decode("utf-8", "replace")
    return code.result(), answer.result(), " ".join("".join(c if c.isprintable() else " " for c in text).split())


async def _head(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """The first bytes of a stream that is read to its end, so that its writer is never held up."""
    kept = b""
    while stream is not None and (chunk := await stream.read(65536)):
        kept += chunk[: limit - len(kept)]
    return kept


def _ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _granted(answer: bytes, version: str) -> Granted:
    if not answer.strip():
        raise ConfigError("expected an ExecCredential on standard output, found nothing")
    # What begins as JSON must be JSON to its end.
    top = Fields("", json.loads(answer) if answer.lstrip().startswith(b"{") else read(answer))
    for name, expected in (("kind", "ExecCredential"), ("apiVersion", version)):
        if (found := top.text(name)) != expected:
            raise ConfigError(f"{name}: expected {expected}, found {found!r}")
    if top.value.get("status") is None:
        raise ConfigError("status: expected a token or a certificate, found none")
    status = top.part("status")
    token = status.text("token")
    certificate, key = status.text("clientCertificateData").encode(), status.text("clientKeyData").encode()
    if not token and not certificate and not key:
        raise ConfigError("status: expected a token, or a certificate and its key; found neither")
    if bool(certificate) != bool(key):
        raise ConfigError("status: expected clientCertificateData and clientKeyData, found one of them")
    return Granted(token, certificate, key, _time(status))


def _time(status: Fields) -> datetime | None:
    if status.value.get("expirationTimestamp") is None:
        return None
    text = status.text("expirationTimestamp")
    try:
        found = _TIME.fullmatch(text)
        if found is None:
            raise ValueError
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        sign, hours, minutes = found[7] or "+", int(found[8] or 0), int(found[9] or 0)
        if hours > 24 or minutes > 59:
            raise ValueError
        offset = timedelta(hours=hours, minutes=minutes)
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"status.expirationTimestamp: expected a time as 2006-01-02T15:04:05Z, found {text[:40]!r}"
        ) from None
    try:
        return local - offset if sign == "+" else local + offset
    except OverflowError:
        return local
