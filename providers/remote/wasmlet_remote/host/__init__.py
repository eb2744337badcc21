"""`wasmlet host`: the node loop of many agents that dial in, each of which is a node.

`acceptor` is where they dial in, `tokens` lets them in, `links` carries requests to them, `nodes` runs their nodes.
"""

from __future__ import annotations
