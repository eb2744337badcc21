"""What a guest's process and the broker say to each other: packets of JSON over a container's control socket.

The socket is SOCK_SEQPACKET, so a packet arrives whole. A request has a number `n` of the guest's choice and `ask`, its
operation; the answer has that number as `re`. Several requests may be under way, and answers come in any order.

| ask | fields | answer |
|---|---|---|
| `listen` | `port`, `protocol` (`TCP` where there is none) | descriptors: bound sockets that do not listen yet |
| `connect` | `host` (a name or an address), `port`, `protocol` | a connected socket; `local`, `peer`: [address, port] |
| `resolve` | `name` | `addresses`, the best first; maybe none that may be dialled |
| `use` | `name` of a capability that its host has refused | EACCES, always; the pod's owner is told |

A refusal is `error`, the name of an errno, and `why`, in words. These are:

- EACCES: it was not granted. EAGAIN: `MAX_UNDER_WAY` requests are under way. EPROTO: the packet is none of these.
- ENOENT: there is no such name, or it has no address. EHOSTDOWN: no DNS server has answered. EIO: those that answered
  have failed.
- EADDRINUSE and all others: what the kernel says.

Without a request come `{"restarted": true}` (the broker is a new one: what has no answer is to be asked again, and the
names that are in use; `repeated` comes after that and has no answer) and `{"gone": why}` (there is none, and there will
be none for this container).
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
"""How what is refused begins where it is no dial; no name of a host has a space."""
