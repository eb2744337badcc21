"""An agent for many tests, each of which has an event loop of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.remote.agents import PATIENCE, ROOT


@contextmanager
def lasting_agent(directory: Path, *command: str) -> Iterator[str]:
    """An agent that runs until the context ends; its URL.

    Args:
        directory: of its state and its log.
        command: of Python, without the options that all agents have.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    paths = [str(ROOT), *filter(None, sys.path)]
    process = subprocess.Popen(
        [sys.executable, *command, f"--state-dir={directory / 'state'}", "--listen=127.0.0.1:0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log, urls, serves = directory / "log", list[str](), threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with log.open("w") as file:
            for line in process.stderr:
                file.write(line)
                with suppress(ValueError):
                    if (told := json.loads(line)).get("event") == "the agent serves":
                        urls.append(told["at"])
                        serves.set()
        serves.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert serves.wait(PATIENCE), "the agent has not started"
        assert urls, log.read_text()
        yield urls[0]
    finally:
        process.terminate()
        process.wait(PATIENCE)
        reader.join()
        assert process.stderr is not None
        process.stderr.close()
