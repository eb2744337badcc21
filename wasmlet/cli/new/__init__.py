"""`wasmlet new`: writes a new package with a provider or an engine, to begin with. Its tests pass at once."""
