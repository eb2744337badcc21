"""The console blocks of a document, and a shell that runs them as a reader would.

A command begins with `$ `, and a line that ends in a backslash goes on. What stands below it is what it prints; `...`
is anything. A comment at its end says what a test cannot do as it is written:

- `# not run here`: it needs a cluster, a registry or a machine that is not here. Where that is so of a whole block, a
  comment of HTML before it says it, which readers do not see;
- `# in a terminal of its own`: it stays up beside the commands that follow, until its document ends;
- `# the path that the demo prints`, `# the address that the demo prints`, `# the name that the node's log says`: taken
  from that terminal.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
NOT_RUN = "not run here"
NEVER = (NOT_RUN, "pip install", "node.kubeconfig", "registry.example/", "# stays up")
"""In what no test runs: also what installs something, needs a node's credentials or a registry, or does not end."""
OWN_TERMINAL = "# in a terminal of its own"
INSTALLED = ("make setup", "make kubectl")
"""What was done before the tests began."""
PATIENCE = 600.0
"""Seconds, for all commands of a document: one runs a whole suite of tests, which others may hold up."""


@attrs.frozen
class Command:
    """One command, what the document shows of its output, and whether a test runs it."""

    text: str
    printed: tuple[str, ...]
    run: bool

    @property
    def bare(self) -> str:
        """Without its comment, on one line."""
        return re.sub(r"\s+# .*", "", " ".join(self.text.replace("\\\n", " ").split()))


def commands(markdown: str) -> list[Command]:
    """The commands of all console blocks, in their order."""
    found = []
    for hidden, block in re.findall(r"(<!-- not run here.*? -->\n)?```console\n(.*?)```", markdown, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.rstrip("\n").split("\n")
            end = next((i for i, line in enumerate(lines) if not line.endswith("\\")), len(lines) - 1)
            printed = tuple(line for line in lines[end + 1 :] if line)
            found.append(
                Command(
                    "\n".join(lines[: end + 1]), printed, run=not hidden and not any(word in part for word in NEVER)
                )
            )
    return found


def like(line: str) -> re.Pattern[str]:
    """What a printed line may be in another run: numbers and generated names are others there."""
    parts = re.split(r"(\d+|(?<=web-)[a-z0-9]+-[a-z0-9]+)", line)
    text = "".join(r"[a-z0-9-]+" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile(text.replace(r"\.\.\.", ".*"))


def missing(printed: Sequence[str], output: str) -> list[str]:
    """The lines of a document that the output does not have, each after the one before."""
    lines, lacks = iter(output.splitlines()), []
    for wanted in (line for line in printed if line.strip() != "..."):
        if not any(like(wanted).fullmatch(line.rstrip()) for line in lines):
            lacks.append(wanted)
    return lacks


@attrs.define
class Terminal:
    """The command that stays up, and what it has printed."""

    process: asyncio.subprocess.Process
    said: str = ""

    async def find(self, pattern: str) -> str:
        """Wait until it has printed what the pattern has in its group."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while (match := re.search(pattern, self.said)) is None:
                line = await self.process.stdout.readline()
                assert line, f"ended, and had printed:\n{self.said}"
                self.said += line.decode()
        return match[1]

    async def end(self) -> None:
        """Ctrl-C, as its reader would press it."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            await self.process.communicate()


@attrs.frozen
class Reader:
    """Somebody at the top of a checkout who types what a document says.

    Attributes:
        directory: a copy of the checkout as far as commands need it.
        environment: variables beside those of this process.
        stands_for: what the reader puts in the place of words of the document, such as NAME.
        seconds: how long all commands together may take.
    """

    directory: Path
    environment: dict[str, str]
    stands_for: dict[str, str] = attrs.field(factory=dict)
    seconds: float = PATIENCE

    async def follow(self, markdown: str) -> str:
        """Run the document's commands, and return all that they print.

        Raises:
            AssertionError: a command failed, or did not print what the document says.
        """
        typed = [one for one in commands(markdown) if one.run and one.bare not in INSTALLED]
        at = next((i for i, one in enumerate(typed) if OWN_TERMINAL in one.text), None)
        if at is None:
            return await self._type(typed, None)
        output = await self._type(typed[:at], None)
        terminal = Terminal(await self._start(f"exec {self._here(typed[at].bare)}", stderr=asyncio.subprocess.STDOUT))
        try:
            return output + await self._type(typed[at + 1 :], terminal)
        finally:
            await terminal.end()

    async def _type(self, typed: Sequence[Command], terminal: Terminal | None) -> str:
        if not typed:
            return ""
        lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
        for number, one in enumerate(typed):
            lines += [f"echo '@@ {number}'", self._here(await self._known(one, terminal))]
        script = "\n".join([*lines, f"echo '@@ {len(typed)}'"])
        if "port-forward" in script:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            script = script.replace(" 8080:", f" {port}:").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        process = await self._start(script, stderr=asyncio.subprocess.STDOUT)
        async with asyncio.timeout(self.seconds):
            out, _ = await process.communicate()
        output = out.decode()
        assert process.returncode == 0, output
        for number, one in enumerate(typed):
            own = output.partition(f"@@ {number}\n")[2].partition(f"@@ {number + 1}\n")[0]
            assert missing(one.printed, own) == [], (one.text, own)
        return output

    async def _known(self, one: Command, terminal: Terminal | None) -> str:
        """The command with what its reader takes from the terminal."""
        if terminal is None:
            return one.bare
        if "the path that the demo prints" in one.text:
            return one.bare.partition("=")[0] + "=" + await terminal.find(r"kubeconfig +(\S+)")
        if "address that the demo prints" in one.text:
            return one.bare.replace("http://127.0.0.1:8080", await terminal.find(r"answers at (http://\S+?)/?\s"))
        if "the name that the node's log says" in one.text:
            return one.bare.replace("node-csr-NAME", await terminal.find(r"certificate approve (node-csr-\w+)"))
        return one.bare

    def _here(self, command: str) -> str:
        """The command with the programs and the patience of these tests; make installs nothing: it is all installed."""
        for word, meant in self.stands_for.items():
            command = command.replace(word, meant)
        command = re.sub(r"^make ", "make -o .venv/.base -o .venv/.dev ", command)
        command = re.sub(r"--timeout=\d+[sm]", f"--timeout={PATIENCE:g}s", command)
        return command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")

    async def _start(self, script: str, **pipes: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=self.directory, env=os.environ | self.environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, **pipes,
        )  # fmt: skip
