"""`python -m wasmlet` is `wasmlet`."""

from wasmlet.cli import main

if __name__ == "__main__":
    main()
