"""The main loop of `wasmlet top`: it gets the data, waits, and draws.

Nodes and pods come from one watch each; CPU and memory are read once in each interval. If that read fails, the API
server counts as away. What was known last then stays on the screen, with a line that says so. When a read succeeds
again, the watches are tried again at once. The screen is drawn when something has changed, and once in each interval,
but never more than a few times in a second.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import click

from wasmlet.cli import log
from wasmlet.cli.top import plain
from wasmlet.cli.top.cluster import NODE_LABEL, Rows, Snapshot, node_row, pod_row
from wasmlet.cli.top.keys import typed
from wasmlet.cli.top.options import Options
from wasmlet.cli.top.screen import Screen, View, makes_screens
from wasmlet.cli.top.tables import Table, headline, node_table, pod_table
from wasmlet.cli.top.usage import Usage, UsageReader
from wasmlet.clock import Clock, SystemClock, either
from wasmlet.concurrency import first_of
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.kube import Client, Reflector, Selection, errors, load_identity, paths
from wasmlet.signals import on_stop_signals

DRAW_SECONDS = 0.1
"""The least time between two drawings."""
READ_SECONDS = 10.0
"""How long a reading of CPU and memory may take; the API server counts as away then."""


class NotAllowed(WasmletError):
    """These credentials may not see what is to be shown."""


async def show(options: Options) -> None:
    """Show it until the user ends it, or once.

    Raises:
        ConfigError: there is no such node, or no usable kubeconfig.
        NotAllowed: nodes or pods may not be listed.
        ApiError: the API server cannot be reached in the first place, or does not understand a selector.
    """
    log.configure("error")  # what fails is said on the screen
    async with Client(await load_identity(options.kubeconfig, options.context)) as client:
        await Top(client, options, SystemClock()).run()


class Top:
    """One run of the command."""

    def __init__(self, client: Client, options: Options, clock: Clock) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._changed = asyncio.Event()
        self._nodes = Rows(node_row, clock.now, self._changed.set)
        self._pods = Rows(pod_row, clock.now, self._changed.set)
        self._usage = Usage()
        self._reader = UsageReader(client, options.namespace, clock)
        self._away: tuple[datetime, str] | None = None
        """Since when the API server is away, and what was said of it first."""

    async def run(self) -> None:
        """See `show`."""
        if self._options.once:
            watches = await self._watches(errors.ApiError)
            await first_of(self._print_once(), *watches)
            return
        stop = asyncio.Event()
        with on_stop_signals(stop.set):
            await first_of(stop.wait(), self._go_on(stop))

    async def _go_on(self, stop: asyncio.Event) -> None:
        watches = await self._watches()
        shown = self._draw(stop) if makes_screens() else self._print_again()
        await first_of(shown, self._measure(), *watches)

    async def _watches(self, *fatal: type[errors.ApiError]) -> Sequence[Coroutine[Any, Any, None]]:
        """The watches of nodes and pods, once it is known that they are allowed."""
        selections = self._selections()
        for selection in selections:
            await self._check(selection)
        return [
            Reflector(self._client, selection, rows, fatal=fatal).run()
            for selection, rows in zip(selections, (self._nodes, self._pods), strict=True)
        ]

    def _selections(self) -> Sequence[Selection]:
        """Nodes, and pods."""
        options = self._options
        node = {"fieldSelector": f"metadata.name={options.node}"} if options.node else {}
        where = f"/api/v1/namespaces/{options.namespace}/pods" if options.namespace else paths.PODS
        chosen = {"labelSelector": options.selector} if options.selector else {}
        placed = {"fieldSelector": f"spec.nodeName={options.node}"} if options.node else {}
        return Selection(paths.NODES, {"labelSelector": NODE_LABEL, **node}), Selection(where, chosen | placed)

    async def _check(self, selection: Selection) -> None:
        """See that it may be listed, before anything is shown."""
        try:
            found = await self._client.get(selection.path, **selection.params, limit="1")
        except errors.Forbidden as error:
            raise NotAllowed(
                f"{error}. `wasmlet top` needs the right to list and watch nodes, and pods: "
                "of all namespaces, or of one that is named with -n"
            ) from None
        if selection.path == paths.NODES and self._options.node and not found["items"]:
            raise ConfigError(
                f"there is no node {self._options.node} of wasmlet; see: kubectl get nodes -l {NODE_LABEL}"
            )

    async def _print_once(self) -> None:
        await self._known()
        self._usage = await self._reader.read(self._names())
        self._print()

    async def _print_again(self) -> NoReturn:
        await self._known()
        while True:
            await self._clock.sleep(DRAW_SECONDS)  # the first reading is under way
            if self._options.headers:
                click.echo(f"{self._clock.now().astimezone():%Y-%m-%d %H:%M:%S}")
            self._print()
            click.echo("")
            await self._clock.sleep(self._options.interval)

    def _print(self) -> None:
        head, tables = self._shown(self._options.sort)
        if trouble := self._trouble():
            click.echo(trouble, err=True)
        for line in plain.lines(head, tables, headers=self._options.headers):
            click.echo(line)

    async def _draw(self, stop: asyncio.Event) -> NoReturn:
        view = View(self._options.sort)

        def press(key: str) -> None:
            if key in ("q", "Q"):
                stop.set()
            elif view.press(key):
                self._changed.set()

        await self._known()
        with typed(press), _resized(self._changed), Screen() as screen:
            while True:
                self._changed.clear()
                head, (nodes, pods) = self._shown(view.sort)
                title = f"wasmlet top   {self._client.identity.server}   {self._clock.now().astimezone():%H:%M:%S}"
                screen.draw(title, head, self._trouble(), nodes, pods, view)
                await self._clock.sleep(DRAW_SECONDS)
                await either(self._clock, self._options.interval, self._changed)

    async def _measure(self) -> NoReturn:
        """Read CPU and memory again and again; and learn whether the API server is there."""
        await self._known()
        recovery = self._client.recovery
        while True:
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._usage = await self._reader.read(self._names())
            except (errors.ApiError, TimeoutError) as error:
                said = str(error) or f"{self._client.identity.server} did not answer within {READ_SECONDS:g} s"
                self._away = self._away or (self._clock.now(), said)
                recovery.lost(silent=isinstance(error, TimeoutError))
            else:
                self._away = None
                recovery.found(began)
            self._changed.set()
            await self._clock.sleep(self._options.interval)

    async def _known(self) -> None:
        """Return when nodes and pods have been listed."""
        while not (self._nodes.known and self._pods.known):
            self._changed.clear()
            await self._changed.wait()

    def _names(self) -> Sequence[str]:
        return sorted(node.name for node in self._nodes.rows.values() if node.ready)

    def _shown(self, sort: str) -> tuple[Sequence[str], Sequence[Table]]:
        """The lines about the whole, and the tables of nodes and pods."""
        shown, now = Snapshot.of([*self._nodes.rows.values()], [*self._pods.rows.values()]), self._clock.now()
        partial = bool(self._options.namespace or self._options.selector)
        tables = node_table(shown, self._usage, now, partial=partial), pod_table(shown, self._usage, sort, now)
        return headline(shown, self._usage), tables

    def _trouble(self) -> str:
        if self._away is not None:
            since, said = self._away
            return f"the API server is away since {since.astimezone():%H:%M:%S}, trying again: {said}"
        if not self._nodes.rows:
            return f"there is no node of wasmlet; see: kubectl get nodes -l {NODE_LABEL}"
        return self._usage.remark


@contextmanager
def _resized(changed: asyncio.Event) -> Iterator[None]:
    """While open, the event is set when the terminal gets another size."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
