"""Modules in OCI registries, and the store on disk that keeps what was pulled.

`references` reads what `image` says in a manifest; `credentials` and `helpers` find who may pull it. `http`, `tokens`
and `session` speak to a registry; `manifests`, `trees` and `wasm` understand what it has. `store` keeps modules by
digest, `collection` removes what nobody uses, `access` knows whose each is. `pull` and `push` put it all together; the
runtime (`wasmlet.runtime.images.registries`) and the command line (`wasmlet.cli.artifacts`) use them.
"""
