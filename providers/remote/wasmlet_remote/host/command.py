"""`wasmlet host` on the command line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import click
import yaml

from wasmlet import ConfigError, NodeConfig, SystemClock
from wasmlet.cli import log
from wasmlet.cli.execution import run_loop
from wasmlet.cli.options import common, instance_of, options_of
from wasmlet_remote.config import PushConfig
from wasmlet_remote.host.config import EACH, HostConfig


def _node_options() -> list[click.Parameter]:
    return [option for option in options_of(NodeConfig) if option.name in EACH]


@click.group("host", invoke_without_command=True)
@click.pass_context
def command(context: click.Context, /, **values: Any) -> None:
    """Be the node loop of many agents, each of which is a node of its own.

    Agents dial in with `wasmlet-agent join`. Requests for a node are made as that node, so that the host needs no
    rights but to make them, by name: `wasmlet host rbac` prints these, `wasmlet host token` makes tokens.
    """
    if context.invoked_subcommand is not None:
        return
    from wasmlet_remote.host.host import serve

    log.configure(values["log_level"])
    run_loop(serve(instance_of(HostConfig, values), instance_of(NodeConfig, values), instance_of(PushConfig, values)))


command.params += [*common(), *options_of(HostConfig), *options_of(PushConfig), *_node_options()]


@command.command("rbac", short_help="Print the rights that a host needs.")
@click.argument("names", nargs=-1, required=True)
@click.option("--namespace", default=attrs.fields(HostConfig).namespace.default, show_default=True)
def _rbac(names: tuple[str, ...], namespace: str) -> None:
    """Print the rights of a host whose agents have these NAMES, for `kubectl apply -f -`."""
    from wasmlet_remote.host.manifests import rights

    click.echo(yaml.safe_dump_all(rights(names, namespace), sort_keys=False), nl=False)


@command.command("token", short_help="Make a token with which agents join.")
@click.option("--namespace", default=attrs.fields(HostConfig).namespace.default, show_default=True)
@click.option("--names", default="*", show_default=True, help="Which names agents may join under; a glob.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many agents may join.")
@click.option("--hours", type=click.FloatRange(0.01, 8760), default=24.0, show_default=True, help="How long it lasts.")
@click.option("--pool", default="", help="Label wasmlet.dev/pool of the nodes.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), required=True, help="Where the token itself is written, mode 0600."
)
@click.option(
    "--tls-ca-file", type=click.Path(path_type=Path), help="Authority of the host's certificate, for the line to type."
)
def _token(**given: Any) -> None:
    """Print the Secret of a new join token, for `kubectl apply -f -`; the token itself goes to a file."""
    from wasmlet.kube.keys import write_private
    from wasmlet_remote.host.manifests import token

    expires = SystemClock().now() + timedelta(hours=given["hours"])
    wanted = {key: given[key] for key in ("names", "uses", "pool")}
    trust = f" --ca-hash {_hash(given['tls_ca_file'])}" if given["tls_ca_file"] else ""
    manifest, text = token(given["namespace"], expires=expires, **wanted)
    write_private(given["token_file"], f"{text}\n".encode())
    click.echo(yaml.safe_dump(manifest, sort_keys=False), nl=False)
    click.echo(f"wasmlet-agent join https://HOST:8443 --token-file {given['token_file']}{trust}", err=True)


def _hash(file: Path) -> str:
    from cryptography import x509
    from wasmlet_agent.authorities import ca_hash

    try:
        return ca_hash(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tls-ca-file {file}: expected a certificate in PEM: {error}") from None
