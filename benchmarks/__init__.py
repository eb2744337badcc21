"""How fast and how small a node is, measured beside the least that any node has to do: `make bench`.

`__main__` is the command; `burst` measures a thousand pods at once, `first_byte` one at a time, `classes` what runs
them side by side, `memory` where a node's memory goes. Nothing is asserted: absolute figures are the machine's, and
only ratios taken in one run travel. Nothing here is imported from outside this package, and importing the package
itself costs nothing.
"""
