"""wasi:sockets: `tcp` and `datagrams`, of `addresses` and `options`."""
