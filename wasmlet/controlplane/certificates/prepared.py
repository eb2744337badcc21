"""The directory, the authority and the certificates of a control plane that is about to start."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime
from pathlib import Path

import attrs

from wasmlet.controlplane.access.users import MASTERS
from wasmlet.controlplane.certificates.kubeconfig import write_private
from wasmlet.controlplane.certificates.pki import Authority


@attrs.frozen(kw_only=True)
class Prepared:
    """What is on disk and in memory before the API server starts.

    Attributes:
        tls: of the API server, for its clients.
        kubelet_certificate, kubelet_key: files, with which the API server shows kubelets who it is.
    """

    directory: Path
    authority: Authority
    tls: ssl.SSLContext
    kubelet_certificate: str
    kubelet_key: str


def prepare(given: Path | None, host: str, now: datetime) -> Prepared:
    """Make the directory, keys and certificates; blocks for some milliseconds.

    Args:
        given: the directory; None for a temporary one, which is the caller's to remove.
        host: the address that the API server listens at.

    Raises:
        OSError: the directory cannot be made or written.
    """
    if given is None:
        directory = Path(tempfile.mkdtemp(prefix="wasmlet-"))
    else:
        directory = given
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority("wasmlet-ca", now)
    hosts = dict.fromkeys([host, "127.0.0.1", "::1", "localhost", "kubernetes.default.svc"])
    serving = authority.server(one for one in hosts if one not in ("", "0.0.0.0", "::"))
    client = authority.client("kube-apiserver-kubelet-client", [MASTERS])
    write_private(directory / "ca.crt", authority.pem)
    certificate = write_private(directory / "apiserver.crt", serving.certificate)
    key = write_private(directory / "apiserver.key", serving.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(certificate, key)
    kubelet_certificate = write_private(directory / "kubelet-client.crt", client.certificate)
    kubelet_key = write_private(directory / "kubelet-client.key", client.key)
    return Prepared(
        directory=directory,
        authority=authority,
        tls=context,
        kubelet_certificate=str(kubelet_certificate),
        kubelet_key=str(kubelet_key),
    )
