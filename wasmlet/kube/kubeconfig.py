"""Kubeconfig files, read and merged by the rules of client-go (its package clientcmd).

Of several files the first that has a name or a value wins; one that is not there is passed over where `KUBECONFIG`
lists it. Paths in a file are relative to its directory. `chosen` gives what one context names, once it is sure that it
can be used.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from wasmlet.errors import ConfigError
from wasmlet.kube.documents import Fields, read

HELP = "give one with --kubeconfig FILE or in KUBECONFIG"
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"

_Value = TypeVar("_Value")


@attrs.frozen
class Cluster:
    """Where an API server is and how to know it.

    Attributes:
        authority_file: the file of the CA that signed the server's certificate; `authority` has its content.
        extension: what the kubeconfig has for the credential plugin; JSON.
    """

    server: str
    tls_server_name: str = ""
    insecure: bool = False
    authority_file: str = ""
    authority: bytes = b""
    proxy_url: str = ""
    disable_compression: bool = False
    extension: Any = None

    def raw(self) -> dict[str, Any]:
        """As it stands in a kubeconfig."""
        fields = {
            "server": self.server,
            "tls-server-name": self.tls_server_name,
            "insecure-skip-tls-verify": self.insecure,
            "certificate-authority": self.authority_file,
            "certificate-authority-data": base64.b64encode(self.authority).decode(),
            "proxy-url": self.proxy_url,
            "disable-compression": self.disable_compression,
        }
        return {name: value for name, value in fields.items() if value}


@attrs.frozen
class Exec:
    """A program that gives credentials."""

    command: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    api_version: str
    install_hint: str
    provide_cluster_info: bool
    interactive_mode: str


@attrs.frozen
class AuthProvider:
    """An issuer of tokens.

    Attributes:
        config: what the kubeconfig has for it, secrets included.
        file: the kubeconfig.
        user: the name of the user in the kubeconfig who has this auth-provider.
    """

    name: str
    config: Mapping[str, str] = attrs.field(repr=False)
    file: Path
    user: str


@attrs.frozen
class User:
    """Who we are to an API server, in any of the ways that a kubeconfig knows."""

    certificate_file: str = ""
    certificate: bytes = attrs.field(default=b"", repr=False)
    key_file: str = ""
    key: bytes = attrs.field(default=b"", repr=False)
    token: str = attrs.field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    as_user: str = ""
    as_uid: str = ""
    as_groups: tuple[str, ...] = ()
    as_extra: tuple[tuple[str, str], ...] = ()
    provider: AuthProvider | None = None
    exec: Exec | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Kubeconfig:
    """One file, or several merged into one."""

    current: str = ""
    contexts: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    """Name of a context to the names of its cluster and its user."""
    clusters: Mapping[str, Cluster] = attrs.field(factory=dict)
    users: Mapping[str, User] = attrs.field(factory=dict)

    @property
    def empty(self) -> bool:
        return self == Kubeconfig()

    def under(self, other: Kubeconfig) -> Kubeconfig:
        """This configuration, completed with what only the other one has."""
        return Kubeconfig(
            self.current or other.current,
            {**other.contexts, **self.contexts},
            {**other.clusters, **self.clusters},
            {**other.users, **self.users},
        )

    def chosen(self, context: str | None = None) -> tuple[Cluster, User]:
        """What a context, or the current one, names.

        Raises:
            ConfigError: it names nothing that can be used.
        """
        name = context or self.current
        if not name:
            raise ConfigError("expected a current-context, found none")
        if name not in self.contexts:
            raise ConfigError(f"its context {name!r} is not among its contexts ({_names(self.contexts)})")
        of_cluster, of_user = self.contexts[name]
        if of_cluster not in self.clusters:
            raise ConfigError(f"context {name!r}: its cluster {of_cluster!r} is not among the clusters")
        if of_user and of_user not in self.users:
            raise ConfigError(f"context {name!r}: its user {of_user!r} is not among the users")
        cluster, user = self.clusters[of_cluster], self.users.get(of_user, User())
        _check_cluster(f"cluster {of_cluster!r}", cluster)
        _check_user(f"user {of_user!r}", user)
        return cluster, user


def named_files(environment: Mapping[str, str]) -> list[Path]:
    """The files that `KUBECONFIG` lists, each once; empty parts are passed over."""
    parts = environment.get("KUBECONFIG", "").split(os.pathsep)
    return [Path(part) for part in dict.fromkeys(parts) if part]


def load(paths: Sequence[Path]) -> Kubeconfig:
    """These files as one; those that are not there are passed over.

    Raises:
        ConfigError: a file cannot be read or is no kubeconfig; the message names it.
    """
    merged = Kubeconfig()
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"kubeconfig {path}: {error.strerror or error}; {HELP}") from None
        try:
            merged = merged.under(parse(content, path.absolute()))
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"kubeconfig {path} cannot be used: {error}") from None
    return merged


def parse(content: bytes, file: Path) -> Kubeconfig:
    """One file's content.

    Args:
        file: absolute; the paths in it are relative to its directory.

    Raises:
        ConfigError: a field has another type than it must.
        ValueError: it is neither JSON nor YAML.
    """
    top = Fields("", read(content))
    for name, expected in (("apiVersion", "v1"), ("kind", "Config")):
        if (found := top.text(name)) not in ("", expected):
            raise ConfigError(f"{name}: expected {expected}, found {found!r}")
    preferences = top.part("preferences")
    preferences.flag("colors")
    _extensions(preferences)
    _extensions(top)
    return Kubeconfig(
        top.text("current-context"),
        _by_name(top, "contexts", "context", lambda _, fields: _context(fields)),
        _by_name(top, "clusters", "cluster", lambda _, fields: _cluster(fields, file.parent)),
        _by_name(top, "users", "user", lambda name, fields: _user(name, fields, file)),
    )


def _by_name(top: Fields, plural: str, single: str, made: Callable[[str, Fields], _Value]) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for entry in top.parts(plural):
        name = entry.text("name")
        if name in found:
            raise ConfigError(f"{plural}: expected each name once, found {name!r} twice")
        found[name] = made(name, entry.part(single))
    return found


def _extensions(fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in fields.parts("extensions"):
        name = entry.text("name")
        if found.get(name) is not None:
            raise ConfigError(f"{entry.where}: expected each extension once, found {name!r} twice")
        found[name] = entry.value.get("extension")
    return found


def _context(fields: Fields) -> tuple[str, str]:
    fields.text("namespace")
    _extensions(fields)
    return fields.text("cluster"), fields.text("user")


def _cluster(fields: Fields, directory: Path) -> Cluster:
    extensions = _extensions(fields)
    return Cluster(
        server=fields.text("server"),
        tls_server_name=fields.text("tls-server-name"),
        insecure=fields.flag("insecure-skip-tls-verify"),
        authority_file=_path(fields.text("certificate-authority"), directory),
        authority=fields.binary("certificate-authority-data"),
        proxy_url=fields.text("proxy-url"),
        disable_compression=fields.flag("disable-compression"),
        extension=extensions.get(_EXEC_EXTENSION),
    )


def _user(name: str, fields: Fields, file: Path) -> User:
    _extensions(fields)
    directory = file.parent
    extra = fields.part("as-user-extra")
    provider, plugin = fields.value.get("auth-provider"), fields.value.get("exec")
    return User(
        certificate_file=_path(fields.text("client-certificate"), directory),
        certificate=fields.binary("client-certificate-data"),
        key_file=_path(fields.text("client-key"), directory),
        key=fields.binary("client-key-data"),
        token=fields.text("token"),
        token_file=_path(fields.text("tokenFile"), directory),
        username=fields.text("username"),
        password=fields.text("password"),
        as_user=fields.text("as"),
        as_uid=fields.text("as-uid"),
        as_groups=fields.texts("as-groups"),
        as_extra=tuple((key, value) for key in extra.value for value in extra.texts(key)),
        provider=None if provider is None else _provider(name, fields.part("auth-provider"), file),
        exec=None if plugin is None else _exec(fields.part("exec"), directory),
    )


def _provider(user: str, fields: Fields, file: Path) -> AuthProvider:
    config = fields.part("config")
    return AuthProvider(fields.text("name"), {key: config.text(key) for key in config.value}, file, user)


def _exec(fields: Fields, directory: Path) -> Exec:
    command = fields.text("command")
    version = fields.text("apiVersion")
    return Exec(
        command=_path(command, directory) if os.sep in command else command,
        args=fields.texts("args"),
        env=tuple((entry.text("name"), entry.text("value")) for entry in fields.parts("env")),
        api_version=version,
        install_hint=fields.text("installHint"),
        provide_cluster_info=fields.flag("provideClusterInfo"),
        interactive_mode=fields.text("interactiveMode") or ("IfAvailable" if version.endswith("/v1beta1") else ""),
    )


def _path(text: str, directory: Path) -> str:
    return os.path.normpath(directory / text) if text and not os.path.isabs(text) else text


def _check_cluster(name: str, cluster: Cluster) -> None:
    if not cluster.server:
        raise ConfigError(f"{name}: its server is missing; expected https://HOST:PORT")
    if cluster.authority_file and cluster.authority:
        raise ConfigError(f"{name}: expected certificate-authority or certificate-authority-data, found both")


def _check_user(name: str, user: User) -> None:
    if user.certificate_file or user.certificate:
        for field, file, data in (
            ("client-certificate", user.certificate_file, user.certificate),
            ("client-key", user.key_file, user.key),
        ):
            if file and data:
                raise ConfigError(f"{name}: expected {field} or {field}-data, found both")
            if not file and not data:
                raise ConfigError(f"{name}: expected {field} or {field}-data beside its certificate, found neither")
    if (user.token or user.token_file) and (user.username or user.password):
        raise ConfigError(f"{name}: expected a token or a username with a password, found both")
    if user.exec is not None and user.provider is not None:
        raise ConfigError(f"{name}: expected exec or auth-provider, found both")
    if (user.as_uid or user.as_groups or user.as_extra) and not user.as_user:
        raise ConfigError(f"{name}: expected as beside as-uid, as-groups and as-user-extra, found none")


def _names(found: Mapping[str, object]) -> str:
    return ", ".join(map(repr, found)) or "there are none"
