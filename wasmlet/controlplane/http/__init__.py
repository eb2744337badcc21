"""The API over HTTP: requests read and routed, objects listed, watched and answered, discovery, OpenAPI."""
