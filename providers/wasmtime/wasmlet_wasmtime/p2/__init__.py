"""Our own world of WASI preview 2, for components that use HTTP or sockets: what wasmtime's C API cannot grant them.

What a component imports is defined from its own types (`world`), with converters that are made once (`values`); so any
version of 0.2 fits, and an import that is not there is known before anything runs. From the ground up:

- `values`: between values of the component model and those of Python;
- `instances`: one instance of a component, its store, and the resources that it has;
- `world`: the imports of a component, from the functions that the modules above it offer;
- `streams`, `system`: wasi:io, and clocks, randomness, arguments, variables and streams of a process;
- `files`: wasi:filesystem, of `descriptors`; the room `sockets`: wasi:sockets;
- `dialing`: what a guest asks the broker for; `wire`: the bytes of a connection that it gave; `pool`: those that
  wait; `outgoing`: requests;
- `http`: wasi:http/types, of `fields` and `bodies`; `connections`: HTTP/1.1 at a socket; `exchanges`: one request and
  its answer; `front`: who serves which connection when;
- `interfaces`: which components need this world, and how they are checked and loaded;
- `commands`: a component that exports wasi:cli/run, run to its end;
- `serving`: a component that exports wasi:http/incoming-handler, served to its end.

The standard library, wasmtime and h11; Python 3.10. All is imported in the zygote: a child can read no file of
Python's.
"""
