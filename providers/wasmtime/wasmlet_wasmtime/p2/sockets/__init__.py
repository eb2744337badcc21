"""wasi:sockets: `tcp` and `datagrams` (UDP), on top of `addresses` and `options`."""
