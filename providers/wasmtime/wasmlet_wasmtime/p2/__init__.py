"""Our own world of WASI preview 2, for components that use HTTP or sockets.

A world is the set of all functions that a component may import. Through its C API, wasmtime's own world cannot grant
HTTP or sockets to a guest.

The imports of a component are defined from the component's own types (`world`), with converters that are made once
(`values`). So any version of 0.2 fits, and a missing import is noticed before anything runs. From the bottom up:

- `values`: converts values of the component model to Python's, and back;
- `instances`: one instance of a component, its store, and the resources (objects of the host) that it has handles of;
- `world`: the imports of a component, made from the functions that the other modules offer;
- `streams`, `system`: wasi:io; and clocks, random numbers, arguments, variables and streams of a process;
- `files`: wasi:filesystem, on top of `descriptors`; the package `sockets`: wasi:sockets;
- `dialing`: requests to the broker; `wire`: the bytes of a connection that it has opened; `pool`: connections that wait
  for their next request; `outgoing`: a guest's own HTTP requests;
- `http`: wasi:http/types, on top of `fields` and `bodies`; `connections`: a client's socket; `requests`: what comes
  over it; `exchanges`: one request and its answer; `answers`: the bytes of an answer; `front`: which thread serves
  which connection; `turns`: which request is served next, and when a slow client is given up;
- `interfaces`: which components need this world, and how they are checked and loaded;
- `commands`: runs a component that exports wasi:cli/run;
- `serving`: serves a component that exports wasi:http/incoming-handler.

It uses the standard library, wasmtime, h11 and httptools, under Python 3.10. The zygote imports all modules, because a
child can read none of Python's files.
"""
