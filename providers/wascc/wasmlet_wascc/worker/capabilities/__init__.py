"""The capabilities that come with the provider, by the names that actors claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..capability import Capability, Context
from .blobstore import BlobStore
from .extras import Extras
from .keyvalue import KeyValue
from .logging import Logging
from .messaging import Messaging

OWN: Mapping[str, Callable[[Context], Capability]] = {
    "wascc:blobstore": BlobStore,
    "wascc:extras": Extras,
    "wascc:keyvalue": KeyValue,
    "wascc:logging": Logging,
    "wascc:messaging": Messaging,
}
