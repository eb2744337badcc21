"""The entry point of every worker process: `python -I <this directory> shim|zygote|broker|...`.

It first registers this directory as a package of its own. So the modules here can use relative imports, as they do as
`wasmlet.worker`, and `wasmlet` itself is not imported.
"""

import importlib
import importlib.util
import os
import sys

PACKAGE = "wasmlet_worker"
COMMANDS = {
    "shim": "supervisor.daemon",
    "zygote": "guest.zygote",
    "broker": "broker.broker",
    "compile": "guest.compiler",
    "compress": "supervisor.compression",
    "confine": "guest.confine",
}


def main(arguments: list[str]) -> int:
    """Run one command, and return its exit status."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Python puts the directory of its script on the path, where our modules would hide others of the same name.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"expected one of {', '.join(COMMANDS)} and its arguments, found {arguments}\n")
        return 2
    command = importlib.import_module(f"{PACKAGE}.{COMMANDS[arguments[0]]}")
    return int(command.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
