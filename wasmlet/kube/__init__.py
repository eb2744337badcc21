"""Access to the Kubernetes API: who we are, requests, watches, events.

kubernetes-asyncio loads configuration and credentials; traffic is aiohttp and orjson on raw objects, because typed
models cost some fifty times more. Nothing below this layer may talk to the API server.
"""

from wasmlet.kube.client import Client
from wasmlet.kube.config import Identity, load_identity
from wasmlet.kube.reflector import History, Reflector

__all__ = ["Client", "History", "Identity", "Reflector", "load_identity"]
