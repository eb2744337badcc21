"""Access to the Kubernetes API: who we are, requests, watches, events.

Configuration and credentials mean what they mean to kubectl (`config`). kubernetes-asyncio renews OpenID Connect's
tokens; traffic is aiohttp and orjson on raw objects, because typed models cost some fifty times more. Nothing below
this layer may talk to the API server.
"""

from wasmlet.kube.client import Client
from wasmlet.kube.config import Identity, load_identity
from wasmlet.kube.recovery import Recovery
from wasmlet.kube.reflector import History, Reflector, Selection, later

__all__ = ["Client", "History", "Identity", "Recovery", "Reflector", "Selection", "later", "load_identity"]
