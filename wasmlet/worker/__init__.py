"""The worker side: what runs guests, apart from the node loop and from everything else of wasmlet.

Standard library only, Python 3.10 or newer, and nothing imported from the rest of wasmlet, because these processes run
under whatever interpreter an engine needs and stay small. Started by path (`python -I .../wasmlet/worker shim ...`),
never with `-m`, which would import the face of the package and everything behind it.

    node loop --unix socket--> shim --unix socket--> zygote --fork--> child (one per container, or per dense worker)

- `shim`: one per node; parent and reaper of everything below, keeper of logs and records; outlives the node loop.
- `zygote`: one per engine; has the engine loaded and forks.
- `child`: becomes the container.
- `dense`: what a child becomes instead that runs many containers, each on a thread; `workers` is the shim's side of it.
- `compiler`: a process of its own that compiles one module.
- `compression`: a process of its own that compresses one full log file.

`wire` is what they say to each other; `wasmlet.runtime.shim.client` is the node loop's side of it.
"""
