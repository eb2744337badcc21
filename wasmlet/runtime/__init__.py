"""`RuntimeProvider`: a provider that does around containers what a kubelet does, over an engine that can run one.

An engine says how a module is compiled and run (`engine`); everything else is shared: the life of a pod and of each of
its containers (`pod`, `container`), what a manifest may ask (`manifest`), images (`images`), compiling (`compile`),
logs (`logs`), and the connection to the shim, in which the guests live (`shim_client`, `wasmlet.worker`).
"""

from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.engine import DENSE, PROCESS, Engine, EngineSettings, Isolation
from wasmlet.runtime.linking import Links
from wasmlet.runtime.provider import RuntimeProvider
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW0_FUNCTIONS, PREVIEW1, PREVIEW1_FUNCTIONS
from wasmlet.worker.guest.confine import report as confinement_report

__all__ = [
    "DENSE",
    "PREVIEW0",
    "PREVIEW0_FUNCTIONS",
    "PREVIEW1",
    "PREVIEW1_FUNCTIONS",
    "PROCESS",
    "Engine",
    "EngineSettings",
    "Isolation",
    "Links",
    "RuntimeConfig",
    "RuntimeProvider",
    "confinement_report",
]
