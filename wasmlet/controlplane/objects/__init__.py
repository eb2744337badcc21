"""The rules of each kind, from a write to the store: defaults, admission, validation, patches, deletion."""
