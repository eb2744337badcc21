"""Claims and the volumes that they are bound to: `matching` says which fit, `binder` binds them."""
