"""Modules in OCI registries, and the store on disk that keeps what was pulled.

`references` reads what a manifest's `image` says, `credentials` and `helpers` find who may pull it.
"""
