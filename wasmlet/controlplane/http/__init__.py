"""The API over HTTP: paths, bodies, lists, watches, tables, discovery, OpenAPI."""
