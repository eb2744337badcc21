"""`RuntimeProvider`: does for pods what a kubelet does, and runs each container as a WebAssembly guest of an engine.

An `Engine` says how a module is compiled and run (`engine`); all engines share the rest:

- `provider`: the methods of a provider; `services`: what all pods share; `config`: the settings;
- `pods`: which fields of a manifest are supported, and the life cycle of a pod and of its containers;
- `streams`: exec, attach, and the commands of probes and hooks;
- `handlers`: which engine runs the pods of a RuntimeClass; `isolation`: what isolates guests on this machine;
- `images`: pulling and compiling; `collecting`: removing what no pod uses; `linking`: what a module may import;
- `files`: volumes, mounts, and the other files that a guest sees;
- `network`: addresses of pods, and what a pod may do on the network;
- `logs`, `stats`: reading logs, and measuring CPU, memory and disk usage;
- `shim`: the connection to the shim, the process that is the parent of all guests; its code is in `wasmlet.worker`.

A provider is the part of a node that runs pods. The node loop talks to Kubernetes and calls the provider.
"""

from wasmlet.artifacts.wasm_types import Signature
from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.engine import DENSE, PROCESS, Engine, EngineSettings, GuestSettings, Isolation, Needs
from wasmlet.runtime.linking import Links
from wasmlet.runtime.provider import RuntimeProvider
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW0_FUNCTIONS, PREVIEW1, PREVIEW1_FUNCTIONS
from wasmlet.worker.guest.confine import report as confinement_report
from wasmlet.worker.guest.engines import DenseEngine as DenseGuestModule
from wasmlet.worker.guest.engines import Engine as GuestModule

__all__ = [
    "DENSE",
    "PREVIEW0",
    "PREVIEW0_FUNCTIONS",
    "PREVIEW1",
    "PREVIEW1_FUNCTIONS",
    "PROCESS",
    "DenseGuestModule",
    "Engine",
    "EngineSettings",
    "GuestModule",
    "GuestSettings",
    "Isolation",
    "Links",
    "Needs",
    "RuntimeConfig",
    "RuntimeProvider",
    "Signature",
    "confinement_report",
]
