"""`wasmlet new`: writes a package with a provider or an engine of one's own, whose tests pass at once."""
