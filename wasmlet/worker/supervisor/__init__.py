"""What supervises guests: the shim, with its records, logs, control groups and connections."""
