"""`wasmlet top`: shows the nodes of wasmlet in a cluster, their pods, and the CPU and memory of both, live.

- `command`, `options`: what is asked for; nothing else of this package is imported before it runs;
- `cluster`: what is known of nodes and pods, kept by watches;
- `usage`: CPU and memory, of the metrics API or of the nodes themselves;
- `tables`: rows and columns: which are shown, in which order, how wide;
- `plain` and `screen`: the same as lines of text, and on a terminal by rich;
- `keys`: what is typed meanwhile;
- `live`: asks, waits and draws.
"""
