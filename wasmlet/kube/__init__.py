"""Access to the Kubernetes API: who we are, requests, watches, events.

Configuration and credentials mean what they mean to kubectl (`config`). kubernetes-asyncio renews OpenID Connect's
tokens. Connections are aiohttp's, what is said on them is llhttp's and orjson's, on raw objects: typed models cost some
fifty times more. Nothing below this layer may talk to the API server.
"""

from wasmlet.kube.client import Client
from wasmlet.kube.config import Identity, load_identity
from wasmlet.kube.recovery import Recovery
from wasmlet.kube.reflector import History, Reflector, Selection, later

__all__ = ["Client", "History", "Identity", "Recovery", "Reflector", "Selection", "later", "load_identity"]
