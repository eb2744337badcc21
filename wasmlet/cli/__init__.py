"""The command line: `wasmlet`, and the same with a provider fixed (`wasmlet-wasmtime`).

Every option is a flag, a `WASMLET_*` variable and a key of a TOML file, in this order; which there are follows from the
attrs classes that hold them (`wasmlet.cli.options`). What a user can get wrong is answered in a line or two on stderr
with exit code 1 or 2, never with a traceback.
"""

from wasmlet.cli.main import main, main_for

__all__ = ["main", "main_for"]
