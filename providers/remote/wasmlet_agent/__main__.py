"""`python -m wasmlet_agent` is `wasmlet-agent`."""

from wasmlet_agent import main

main()
