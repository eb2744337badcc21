"""Bandwidth limits of pods: reads the annotations, which a kubelet's container runtime passes on to CNI plugins.

The rules come from `k8s.io/kubernetes/pkg/util/bandwidth` (`ExtractPodBandwidthResources`); what the plugins are told
comes from containerd (the capability `bandwidth` of the CNI conventions).
"""

from __future__ import annotations

from collections.abc import Mapping

from wasmlet.model.quantity import Quantity
from wasmlet.runtime.network.network import NetworkError

CAPABILITY = "bandwidth"
_WAYS = ("ingress", "egress")
_LEAST, _MOST = Quantity.parse("1k"), Quantity.parse("1P")
_BURST = 2**32 - 1
"""The burst size in bits: so large that only the rate limits."""


def annotation(way: str) -> str:
    """The annotation for `ingress` or `egress`, in bits per second."""
    return f"kubernetes.io/{way}-bandwidth"


def asked(annotations: Mapping[str, str]) -> dict[str, str]:
    """What a pod's annotations say, by `ingress` and `egress`; it is not looked at yet."""
    return {way: annotations[name] for way in _WAYS if (name := annotation(way)) in annotations}


def as_capability(wanted: Mapping[str, str]) -> dict[str, int]:
    """What plugins are told; {} where a pod says nothing.

    Raises:
        NetworkError: an annotation says nothing that can be; names it.
    """
    told: dict[str, int] = {}
    for way, text in wanted.items():
        told[f"{way}Rate"] = _rate(way, text)
        told[f"{way}Burst"] = _BURST
    return told


def _rate(way: str, text: str) -> int:
    where = f"annotation {annotation(way)}"
    try:
        found = Quantity.parse(text)
    except ValueError:
        raise NetworkError(
            f"{where}: expected bits per second as a quantity such as 10M, found {text[:40]!r}"
        ) from None
    if found < _LEAST or found > _MOST:
        size = "small (< 1kbit)" if found < _LEAST else "large (> 1Pbit)"
        raise NetworkError(f"{where}: {text[:40]!r} is unreasonably {size}; expected a quantity from 1k to 1P")
    return found.units()
