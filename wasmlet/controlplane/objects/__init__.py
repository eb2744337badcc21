"""The rules of each kind: defaults, validation, admission, creation, changes and deletion."""
