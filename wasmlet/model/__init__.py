"""The values that everything else speaks in: pods, statuses, quantities, inputs.

Nothing here does I/O, and nothing here imports from a layer above.
"""
