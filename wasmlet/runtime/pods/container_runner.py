"""Keeps one container of a pod running by its restart policy: starts, watches and restarts it, as the kubelet does.

`container` holds its state and ends its instances. A start is `plan` and `launch`; `starting` repeats it if it fails.
`probes` watch a running instance, and `restarts` says how long to wait between an end and the next start.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Raw
from wasmlet.model.restart import restarts
from wasmlet.model.status import Terminated, Waiting
from wasmlet.runtime.handlers import Handler
from wasmlet.runtime.linking import Uses
from wasmlet.runtime.network import requests
from wasmlet.runtime.pods import hooks, launch
from wasmlet.runtime.pods.container import ContainerLife
from wasmlet.runtime.pods.plan import Limits, Networking, StartRequest, plan
from wasmlet.runtime.pods.probes import Probe
from wasmlet.runtime.pods.restarts import duration, full_name, pauses
from wasmlet.runtime.pods.starting import ERROR_SHOWN_SECONDS, START_BACKOFF, FailedStarts
from wasmlet.runtime.resizing import needs_restart
from wasmlet.runtime.shim.instances import state_of
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker import wire


@attrs.frozen
class Kill:
    """The reason why an instance is killed.

    Attributes:
        message: the message of the event.
        grace: its grace period in seconds.
        restart: run the container again, whatever exit code the instance ends with.
        anew: the manifest has changed, so earlier failures do not count for the back-off.
    """

    message: str
    grace: float
    restart: bool
    anew: bool = False


class ContainerRunner:
    """Runs one container until it is not to run again. One at a time for each container."""

    def __init__(self, life: ContainerLife) -> None:
        self._life = life
        name = f"{life.pod_life.key}/{life.name}"
        self._failed_starts = FailedStarts(life, life.pod_life.services.clock, life.updated, name)

    async def run(self) -> Terminated:
        """Keep the container running under its policy; return how it ended, once it is not to run again."""
        if self._life.record is None:
            await self._start()
        self._life.tried.set()
        try:
            while True:
                ended, kill = await self._to_its_end()
                if kill is not None and kill.anew:
                    self._life.set_backoff(0.0)
                elif (kill is not None and kill.restart) or self._restarts(ended.exit_code):
                    await self._back_off(ended, killed=kill is not None)
                else:
                    return ended
                await self._start()
        finally:
            self._life.is_not_replaced()  # cancelled before another instance was there

    def _restarts(self, exit_code: int) -> bool:
        return restarts(self._life.pod_life.manifest, self._life.spec, exit_code)

    async def _start(self) -> None:
        """Start the next instance, however often that has to be tried; return once it runs or has ended."""
        for number, pause in enumerate(START_BACKOFF.pauses()):
            self._life.updated.clear()
            spec = self._life.spec
            hook = hooks.hook_of(spec, "postStart")
            self._life.starts(hook)
            try:
                await self._launch(spec)
            except Exception as error:
                self._close_ports()
                await self._failed_starts.show(error, spec.image, pause, first=number == 0)
            except BaseException:
                self._close_ports()  # other containers of the pod may go on for as long as they have to end
                raise
            else:
                await self._run_post_start(hook)
                return

    def _close_ports(self) -> None:
        """Nothing has been started, so nobody listens at its ports."""
        pod = self._life.pod_life
        if not self._life.lives:
            pod.sandbox.closes(self._life.name)
            pod.sandbox.sync_ports(pod.now)

    async def _launch(self, spec: Container) -> None:
        """Start the next instance; return once its guest runs or has ended.

        Raises:
            ImageError: the module cannot be had.
            Refused: the manifest asks for what this node cannot give.
            CompileError: the module cannot be compiled.
            WasmletError, OSError: the shim cannot run it.
        """
        pod, services = self._life.pod_life, self._life.pod_life.services
        handler, volumes = pod.handler, pod.volumes
        needs = launch.ImageNeeds(pod.manifest, spec, pod.inputs, self._life.say, pod.say)
        module = await launch.ensure_images(needs, volumes, services)
        files = await launch.env_files_of(pod.manifest, spec, volumes)
        uses = await services.imports.uses_of(module)
        facts = await services.facts.of(handler.engine, module)
        settings = handler.engine.guest_settings(pod.manifest, spec, facts, services.clock.now().timestamp())
        wanted = plan(self._next(spec, handler, uses), module, files, settings)
        pod.sandbox.listens(self._life.name, wanted.labels.ports)
        await pod.sandbox.open_ports(pod.manifest, pod.inputs)
        self._warn(wanted.remarks)
        await volumes.refresh(pod.manifest, pod.inputs)
        async with launch.prepared(wanted, module, handler, volumes, services, self._life) as ready:
            record = await self._carry_out(ready)
            self._warn(wanted.image_remarks)
            if missing := launch.left_out(ready, module):
                self._life.say("Warning", "ImageFilesLeftOut", missing)
            self._life.say("Normal", "Created", f"Created container: {self._life.name}")
            record = await services.client.wait(record.id, wire.RUNNING, wire.ENDED)
        if record.reason == wire.START_ERROR:
            self._life.say("Warning", "Failed", f"Error: {record.message}")
        else:
            self._life.say("Normal", "Started", f"Started container {self._life.name}")

    def _next(self, spec: Container, handler: Handler, uses: Uses) -> StartRequest:
        """The instance that comes after the present one."""
        pod = self._life.pod_life
        return StartRequest(
            manifest=pod.manifest,
            container=spec,
            inputs=pod.inputs,
            kind=self._life.kind,
            attempt=self._life.instances.attempt + 1 if self._life.record else 0,
            backoff=self._life.backoff,
            resources=self._life.resources,
            handler=handler.name,
            dense=handler.dense,
            user=pod.volumes.user,
            network=Networking(
                pod.sandbox.network,
                pod.services.networks.node,
                pod.services.storage.dns,
                handler.engine.sockets,
                uses,
                {**requests.beside(pod.manifest, spec), **pod.sandbox.taken(spec.name)},
            ),
        )

    async def _carry_out(self, ready: launch.Launch) -> ContainerRecord:
        wanted, services = ready.plan, self._life.pod_life.services
        attempt = wanted.labels.attempt
        await self._life.forget_before(attempt - 1)
        # The resources may have been changed since the plan was made, while the module was compiled.
        resources = self._life.resources
        limits = wanted.limits if wanted.limits.resources == resources else Limits.of(resources)
        self._life.given(resources)
        log_path = f"{self._life.pod_life.logs}{self._life.name}.{attempt}.log"
        self._life.start_sent = True
        try:
            return await launch.carry_out(ready, limits, log_path, services)
        except Exception:  # and not where this is cancelled: it may be started all the same
            self._life.start_sent = False
            raise

    def _warn(self, remarks: Sequence[tuple[str, str]]) -> None:
        for reason, message in remarks:
            self._life.say("Warning", reason, message)

    async def _run_post_start(self, hook: Raw) -> None:
        """Run the hook; what comes next waits until it is over, as at a kubelet."""
        record, services = self._life.record, self._life.pod_life.services
        if record is None or not hook:
            return
        error = "the hook was not run to its end"
        try:
            ended = services.client.wait(record.id, wire.ENDED)
            await hooks.run(hook, self._life.spec, self._life.hook_services(), ended)
            error = ""
        except (WasmletError, OSError) as failure:
            # What a command has written may be secret, so it goes into no event; the status is the pod's own.
            self._life.say("Warning", "FailedPostStartHook", "PostStartHook failed")
            error = str(failure)
        finally:
            self._life.hook_over(error)

    async def _to_its_end(self) -> tuple[Terminated, Kill | None]:
        """Wait for the end of the present instance, and bring it about where there is a reason to."""
        while True:
            kill = await self._reason_to_end()
            if kill is not None:
                if kill.anew:
                    self._life.is_replaced()
                await self._life.stop(kill.grace, kill.message)
            # As `_reason_to_end` sees it: one that the shim has no record of any more has ended, too.
            record = self._life.record
            assert record is not None
            if record.ended:
                state = state_of(record)
                assert isinstance(state, Terminated)
                labels = self._life.instances.labels
                if record.fault == wire.BAD_ARTIFACT and labels is not None:
                    self._life.pod_life.handler.compiler.discard(labels.image_id.removeprefix("sha256:"))
                return state, kill

    async def _reason_to_end(self) -> Kill | None:
        """Watch the present instance until there is a reason to end it; None where it has ended by itself."""
        failed: Probe | None = None
        if self._life.hook_error:
            pass
        elif self._life.prober().idle:  # what most containers are: a prober would wait beside each of them
            self._life.probed(started=True)
            await self._changed()
        else:
            failed = await self._probe()
        if not self._life.lives:
            return None
        grace = float(self._life.pod_life.manifest.termination_grace_seconds)
        if self._life.hook_error:
            return Kill("FailedPostStartHook", grace, restart=False)
        again = self._restarts(wire.INTERRUPTED_CODE)
        if failed is None and self._life.image_changed():
            message = f"Container {self._life.name} definition changed, will be restarted"
            return Kill(message, grace, restart=True, anew=True)
        if failed is None:
            return Kill(f"Container {self._life.name} resize requires restart", grace, restart=True, anew=True)
        word = ", will be restarted" if again else ""
        message = f"Container {self._life.name} failed {failed.kind.lower()} probe{word}"
        return Kill(message, grace if failed.grace is None else failed.grace, restart=again)

    async def _probe(self) -> Probe | None:
        """Probe the present instance until a probe has failed, which is returned, or there is another reason."""
        failed: Probe | None = None

        async def probe() -> None:
            nonlocal failed
            failed = await self._life.prober().run(started=self._life.started)

        await first_of(probe(), self._changed())
        return failed

    async def _changed(self) -> None:
        """Return when the manifest asks for another instance than the present one, or that has ended."""
        life = self._life
        while (
            life.lives
            and not life.image_changed()
            and not needs_restart(life.spec, life.applied_resources, life.resources)
        ):
            self._life.updated.clear()
            await self._life.updated.wait()

    async def _back_off(self, ended: Terminated, *, killed: bool) -> None:
        """Wait as long as the kubelet does before the next restart: not at all, then 10 s, doubling to the cap."""
        clock = self._life.pod_life.services.clock
        ran = (ended.finished_at - ended.started_at).total_seconds() if ended.started_at and ended.finished_at else 0.0
        pause, backoff = pauses(self._life.backoff, ran, self._life.pod_life.services.restart_cap)
        self._life.set_backoff(backoff)
        since = self._life.instances.since_end(ended.finished_at)
        if killed and not self._life.hook_error:
            # The kubelet ends and starts it in one go, and counts the pause from the end before this one.
            before = self._life.instances.earlier.get(self._life.instances.attempt - 1)
            since = pause if before is None else max(since, clock.now().timestamp() - before.finished)
        if self._life.hook_error:
            self._life.show(Waiting("PostStartHookError", self._life.hook_error))
            shown = min(ERROR_SHOWN_SECONDS, pause - since)
            await clock.sleep(shown)
            since += max(0.0, shown)
        if since >= pause:
            return
        who = full_name(self._life.pod_life.key)
        self._life.say("Warning", "BackOff", f"Back-off restarting failed container {self._life.name} in pod {who}")
        message = f"back-off {duration(pause)} restarting failed container={self._life.name} pod={who}"
        self._life.backs_off(Waiting("CrashLoopBackOff", message))
        until = clock.monotonic() + pause - max(0.0, since)
        while (left := until - clock.monotonic()) > 0 and not self._life.image_changed():
            self._life.updated.clear()
            await first_of(clock.sleep(left), self._life.updated.wait())
