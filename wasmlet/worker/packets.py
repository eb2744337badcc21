"""The protocol between a guest's process and the broker: JSON packets over the container's control socket.

The socket is SOCK_SEQPACKET, so a packet arrives complete. A request has a number `n`, which the guest chooses, and an
operation `ask`. The answer has the same number as `re`. Several requests may be under way at a time, and their answers
come in any order.


| ask | fields | answer |
|---|---|---|
| `listen` | `port`, `protocol` (`TCP` where there is none) | descriptors: bound sockets that do not listen yet |
| `connect` | `host` (a name or an address), `port`, `protocol` | a connected socket; `local`, `peer`: [address, port] |
| `resolve` | `name` | `addresses`, the best first; maybe none that may be dialled |
| `use` | `name` of a capability that the engine has refused to the guest | always EACCES; the pod's owner is told |

A refusal has `error`, the name of an errno, and `why`, the reason in words:

- EACCES: not granted. EAGAIN: `MAX_UNDER_WAY` requests are under way. EPROTO: the packet is not a valid request.
- ENOENT: there is no such name, or it has no address. EHOSTDOWN: no DNS server has answered. EIO: those that answered
  have failed.
- EADDRINUSE and all others: what the kernel says.

Two packets come without a request:
- `{"restarted": true}`: there is a new broker. The guest repeats its unanswered requests, and the lookups of the names
  that it uses. Then it sends `repeated`, which has no answer.
- `{"gone": why}`: there is no broker, and there will be none for this container.
"""

from __future__ import annotations

MAX_PACKET = 4096
"""Bytes of one packet."""

MAX_UNDER_WAY = 64
"""Requests of one container that have no answer yet."""

MAX_SOCKETS = 16
"""Descriptors of one answer."""

LISTEN, CONNECT, RESOLVE, USE, REPEATED = "listen", "connect", "resolve", "use", "repeated"

CAPABILITY = "capability "
"""The prefix of a reported refusal that is a capability, not a destination. Host names contain no space."""
