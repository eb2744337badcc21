"""Benchmarks: how fast and how small a node is, beside the least work that any node has to do (`make bench`).

`__main__` is the command. `burst` measures a thousand pods at once, `first_byte` one pod at a time, `classes` the
engines side by side, `memory` where a node's memory goes, and `account` what a pod costs in each phase of its life.
Nothing is asserted. Absolute figures depend on the machine; only ratios from one run can be compared between machines.
`wasmlet` does not import this package, and importing it costs nothing.
"""
