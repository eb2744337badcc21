"""`RuntimeProvider`: a provider that does around containers what a kubelet does, over an engine that can run one.

An engine says how a module is compiled and run (`engine`); everything else is shared:

- `provider`: the calls of a provider; `services`: what all pods share; `config`: the settings;
- `pods`: what a manifest may ask, and the life of a pod and of each of its containers;
- `streams`: exec, attach, and the commands of probes and hooks;
- `handlers`: which engine runs a RuntimeClass; `isolation`: what isolates guests on this machine;
- `images`: pulling and compiling; `collecting`: removing what no pod uses; `linking`: what a module may import;
- `files`: volumes, mounts, and the other files that a guest sees;
- `logs`, `stats`: reading logs, and measuring what containers take;
- `shim`: the connection to the shim, the parent of all guests; its code is in `wasmlet.worker`.
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
