"""Client for OCI registries, and the store on disk that keeps the WebAssembly modules that were pulled from them.

- `references` parses the `image` of a manifest; `credentials` and `helpers` find the credentials for it.
- `http`, `tokens` and `session` speak the registry protocol; `manifests`, `trees` and `wasm` parse what it sends.
- `store` keeps modules by digest; `collection` removes those that nobody uses; `access` records who pulled what.
- `pull` and `push` combine these.

Two places use this package: the runtime (`wasmlet.runtime.images.registries`) and the command line
(`wasmlet.cli.artifacts`).
"""
