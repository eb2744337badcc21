"""The worker processes: they run the guests, separate from the node loop and from the rest of wasmlet.

A guest is the WebAssembly program of a container. The node loop is the process that talks to Kubernetes.

This package uses only the standard library (Python 3.10 or newer) and imports nothing else of wasmlet, because these
processes run under whatever interpreter an engine needs, and have to stay small. They are started by path
(`python -I .../wasmlet/worker shim ...`), not with `-m`, which would import all of wasmlet.

    node loop --unix socket--> shim --unix socket--> zygote --fork--> child (one per container, or per dense worker)
                                 |--unix socket--> broker

- `shim`: one per node. It is the parent of zygotes, children and the broker, and collects their exit status. It keeps
  the records of containers and writes their logs. It lives on when the node loop ends or restarts.
- `zygote`: one per engine. It has loaded the engine, and forks children.
- `spare`: a child that waits until the shim says what it becomes: `child` or `dense`.
- `child`: becomes the process of one container.
- `dense`: a process that runs many containers, each on a thread. `workers` is the shim's side of it.
- `broker`: one per node. It opens the sockets of guests, which cannot open any themselves.
- `compiler`: a separate process that compiles one module; the node loop starts it.
- `compression`: a separate process that compresses one full log file.

Words that many modules here use:
- spec: the JSON object that tells a child how to run its guest (arguments, environment, mounts; see `wire`).
- record: what the shim knows of one container (`records`).
- grant: what a container may do on the network (`grants`).
- control descriptor: a child's end of its socket to the shim.
- control socket: a child's end of its socket to the broker.

`wire` describes the messages between these processes; `wasmlet.runtime.shim.client` is the node loop's side.
"""
