"""The HTTP server: one handler for every request, from authentication to the bytes of the answer.

`paths` says what a request is about, `access.users` who makes it and `access.authorizer` whether they may;
`objects.registry` and `objects.deletion` carry it out, and `forms` shapes the answer. Every error of a client is
answered with a Status object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
from aiohttp import web

from wasmlet.controlplane.access.authorizer import Attributes, Authorizer
from wasmlet.controlplane.access.impersonation import impersonated
from wasmlet.controlplane.access.users import Authenticator, User
from wasmlet.controlplane.extensions import rules
from wasmlet.controlplane.extensions.definitions import DEFINITION
from wasmlet.controlplane.http import discovery, forms
from wasmlet.controlplane.http.bodies import parse_body
from wasmlet.controlplane.http.fields import FieldValidation
from wasmlet.controlplane.http.lists import Lists
from wasmlet.controlplane.http.metrics_api import MetricsApi
from wasmlet.controlplane.http.openapi import OpenApi
from wasmlet.controlplane.http.paths import PROXY, TRUE, Target, parse
from wasmlet.controlplane.http.reviews import Reviews
from wasmlet.controlplane.http.watch import Watcher
from wasmlet.controlplane.kubelets.proxy import LogProxy
from wasmlet.controlplane.kubelets.streams import SUBRESOURCES, PodStreams
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.patching import APPLY_PATCH, PATCHES, Patching, UnsupportedMedia
from wasmlet.controlplane.objects.pod_operations import PodOperations
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.objects.scale import NAME as SCALE
from wasmlet.controlplane.objects.scale import Scaling
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.selectors import selector
from wasmlet.controlplane.storage.status import ApiError, Object, bad_request
from wasmlet.controlplane.storage.store import Record

BODY = 3 * 2**20
"""The most bytes that the body of a request may have."""
_LOG = logging.getLogger(__name__)
_JSON = "application/json"


@attrs.frozen(kw_only=True)
class ServerServices:
    """The parts of the control plane that the server needs to answer requests."""

    registry: Registry
    deletion: Deletion
    authenticator: Authenticator
    authorizer: Authorizer
    pod_operations: PodOperations
    log_proxy: LogProxy
    streams: PodStreams
    reviews: Reviews
    metrics: MetricsApi
    openapi: OpenApi


class Server:
    """Answers requests. `bookmarks` is the pause between bookmarks of a watch, in seconds."""

    def __init__(self, services: ServerServices, *, bookmarks: float = 60.0) -> None:
        self._services = services
        self._registry = services.registry
        self._store = services.registry.store
        self._patching = Patching(services.registry)
        self._scaling = Scaling(services.registry)
        self._fields = FieldValidation(services.openapi)
        self._lists = Lists(services.registry.store)
        self._bookmarks = bookmarks
        self._watchers: set[Watcher] = set()
        self.closing = False
        self.sender: Callable[[web.BaseRequest, web.StreamResponse], Callable[[bytes], Awaitable[None]]] = (
            lambda request, answer: answer.write
        )
        """Makes the function that sends the bytes of a watch; `Faults` replaces it to break connections."""

    def close(self) -> None:
        """End all watches; requests from now on are answered with 503."""
        self.closing = True
        self.end_watches()
        self._services.log_proxy.end()
        self._services.streams.end()

    def end_watches(self) -> None:
        """End all watches at once."""
        for watcher in list(self._watchers):
            watcher.end()

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    # -- one request

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        try:
            if self.closing:
                raise ApiError(503, "ServiceUnavailable", "the control plane is shutting down")
            return await self._answer(request)
        except ApiError as error:
            return refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return refusal(
                ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {BODY}", details={})
            )
        except RecursionError:
            return refusal(bad_request("the body of the request is nested too deeply"))
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            return web.Response()  # the client has gone; aiohttp needs an answer, which is not sent
        except Exception as error:
            _LOG.exception("%s %s", request.method, request.path)
            return refusal(ApiError(500, "InternalError", f"Internal error occurred: {type(error).__name__}: {error}"))

    def user_name(self, request: web.BaseRequest) -> str:
        """The name of the user who makes the request; "" where the credentials are wrong."""
        try:
            return self._who(request).name
        except ApiError:
            return ""

    def _who(self, request: web.BaseRequest) -> User:
        transport = request.transport
        peer = transport.get_extra_info("peercert") if transport else None
        who = self._services.authenticator.authenticate(request.headers.get("Authorization"), peer)
        return impersonated(self._services.authorizer, who, request.headers)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        who = self._who(request)
        path, params = request.path, request.query
        target = parse(self._store.catalog, request.method, path, params) if path.startswith("/api") else None
        if target is None:
            verb = "get" if request.method in ("GET", "HEAD") else request.method.lower()
            self._services.authorizer.check(who, Attributes(verb, path=path))
            return await self._other(request, path)
        self._services.authorizer.check(who, target.attributes(params))
        if self._services.metrics.answers(target.kind):
            return _json(await self._services.metrics.answer(target, params))
        if target.kind.key == "pods" and target.sub in SUBRESOURCES:
            return await self._upgrade(request, who, target)
        if target.kind.stored and not (target.sub and target.verb == "create"):
            match target.verb:
                case "watch":
                    return await self._watch(request, target)
                case "list":
                    return self._list(request, target)
                case "get" if target.sub == "log":
                    record = self._registry.find(target.kind, target.namespace, target.name)
                    return await self._services.log_proxy.logs(request, record.raw)
                case "get" if target.sub == PROXY:
                    return await self._services.log_proxy.node(request, target.name, target.rest)
                case "get" if target.sub == SCALE:
                    return _json(self._scaling.get(target.kind, target.namespace, target.name))
                case "get":
                    record = self._registry.find(target.kind, target.namespace, target.name)
                    return self._object(request, target, record)
        return await self._write(request, who, target)

    async def _upgrade(self, request: web.BaseRequest, who: User, target: Target) -> web.StreamResponse:
        """Exec, attach and port-forward: a GET needs the right to create, too (as from 1.35)."""
        self._services.authorizer.check(who, attrs.evolve(target, verb="create").attributes(request.query))
        record = self._registry.find(target.kind, target.namespace, target.name)
        return await self._services.streams.answer(request, record.raw, target.sub)

    # -- reading

    def _form(self, request: web.BaseRequest, target: Target) -> forms.Form:
        accept, include = request.headers.get("Accept", ""), request.query.get("includeObject", "")
        version = self._registry.definitions.of(target.kind)
        return forms.choose(target.kind, version, accept, include, self._registry.clock.now)

    def _object(
        self,
        request: web.BaseRequest,
        target: Target,
        record: Record,
        code: int = 200,
        warnings: list[str] | None = None,
    ) -> web.Response:
        answer = web.Response(body=self._form(request, target).one(record), status=code, content_type=_JSON)
        for warning in warnings or ():
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{text}"')
        return answer

    def _list(self, request: web.BaseRequest, target: Target) -> web.Response:
        records, meta = self._lists.page(target, request.query)
        return web.Response(body=self._form(request, target).many(records, meta), content_type=_JSON)

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        params = request.query
        chosen = selector(
            target.kind, target.namespace, params.get("labelSelector", ""), params.get("fieldSelector", "")
        )
        since = _number(params.get("resourceVersion"), "resourceVersion")
        initial = params.get("sendInitialEvents") in TRUE
        bookmarks = params.get("allowWatchBookmarks") in TRUE
        if initial and params.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan")
        replay = initial or (not since and "sendInitialEvents" not in params)
        seconds = _number(params.get("timeoutSeconds"), "timeoutSeconds") or self._registry.rng.uniform(1800, 3600)
        watcher = Watcher(self._store.of(target.kind), chosen, self._form(request, target))
        answer = web.StreamResponse(headers={"Content-Type": _JSON, "Cache-Control": "no-cache, private"})
        answer.enable_chunked_encoding()
        self._watchers.add(watcher)
        try:
            try:
                watcher.open(
                    since=since or None,
                    replay=replay,
                    mark_initial=initial and bookmarks,
                    version=self._store.version,
                )
            except ApiError as error:
                watcher.fail(error)
            await answer.prepare(request)
            await watcher.run(
                self.sender(request, answer),
                seconds=seconds,
                bookmarks=self._bookmarks if bookmarks else None,
                version=lambda: self._store.version,
            )
            await answer.write_eof()
        finally:
            self._watchers.discard(watcher)
        return answer

    # -- writing

    async def _write(self, request: web.BaseRequest, who: User, target: Target) -> web.StreamResponse:
        data = await request.read()
        media = request.content_type if "Content-Type" in request.headers else ""
        params = request.query
        call = Call(
            target.kind,
            target.namespace,
            target.name,
            target.sub,
            who,
            _manager(request, media),
            dry_run="dryRun" in params,
            force=params.get("force") in TRUE,
            strict=params.get("fieldValidation") == "Strict",
        )
        if target.verb in ("delete", "deletecollection"):
            return self._delete(request, call, target, data, media)
        if target.verb == "patch" and media not in PATCHES:
            raise UnsupportedMedia(media)
        body = parse_body(data, media)
        if not target.kind.stored or (target.sub and target.verb == "create"):
            return await self._special(request, call, body)
        if target.sub == SCALE:
            patched = target.verb == "patch"
            return _json(self._scaling.patch(call, media, body) if patched else self._scaling.update(call, body))
        if target.kind == DEFINITION and rules.used(body):
            await asyncio.to_thread(rules.available)  # imports cel-python once, which takes a while
        mode = params.get("fieldValidation", "")
        if mode in ("Strict", "Warn") and not target.kind.custom:
            call.warnings.extend(await self._fields.check(target, media, body, strict=mode == "Strict"))
        warnings = call.warnings if mode != "Ignore" else []
        match target.verb:
            case "create":
                return self._object(request, target, self._registry.create(call, body), 201, warnings)
            case "update":
                record, made = self._registry.update(call, body)
            case _:
                record, made = self._patching.patch(call, media, body)
        return self._object(request, target, record, 201 if made else 200, warnings)

    def _delete(
        self, request: web.BaseRequest, call: Call, target: Target, data: bytes, media: str
    ) -> web.StreamResponse:
        body = parse_body(data, media) if data else None
        options = Options.parse(body, request.query.get("gracePeriodSeconds"), request.query.get("propagationPolicy"))
        if target.verb == "deletecollection":
            records = self._lists.all(target, request.query)
            gone = self._services.deletion.collection(call, records, options)
            meta: Object = {"resourceVersion": str(self._store.version)}
            return web.Response(body=self._form(request, target).many(gone, meta), content_type=_JSON)
        old = self._registry.find(target.kind, target.namespace, target.name)
        record, gone_now = self._services.deletion.delete(call, old, options)
        if gone_now and not target.kind.returns_deleted:
            return _json(status.success(target.kind, record.name, record.raw["metadata"]["uid"]))
        return self._object(request, target, record)

    async def _special(self, request: web.BaseRequest, call: Call, body: Any) -> web.StreamResponse:
        """Answer a POST that creates no object: bindings, evictions, tokens and reviews."""
        if not isinstance(body, dict):
            raise bad_request("the body is not an object")
        if call.kind.key == "pods" or call.kind.key == "bindings":
            return _json(self._services.pod_operations.post(call, body), 201)
        return _json(self._services.reviews.answer(call, body), 201)

    # -- everything else

    async def _other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        parts = path.strip("/").split("/")
        match parts:
            case ["healthz" | "readyz" | "livez", *_]:
                return web.Response(text="ok")
            case ["version"]:
                return _json(discovery.version())
            case ["api" | "apis" as root]:
                return self._roots(request, root)
            case ["api", version]:
                return _found(discovery.resources(self._store.catalog, "", version))
            case ["apis", group]:
                return _found(discovery.group(self._store.catalog, group))
            case ["apis", group, version]:
                return _found(discovery.resources(self._store.catalog, group, version))
            case ["openapi", *rest]:
                return await self._services.openapi.answer(request, rest)
            case [""]:
                return _json({"paths": ["/api", "/apis", "/healthz", "/openapi/v3", "/version"]})
        raise status.no_such_path()

    def _roots(self, request: web.BaseRequest, root: str) -> web.Response:
        accept = request.headers.get("Accept", "")
        for choice in accept.split(","):
            words = dict(part.split("=", 1) for part in choice.replace(" ", "").split(";") if "=" in part)
            if words.get("g") == "apidiscovery.k8s.io" and words.get("v") in discovery.AGGREGATED:
                media = f"application/json;g=apidiscovery.k8s.io;v={words['v']};as=APIGroupDiscoveryList"
                body = discovery.aggregated(self._store.catalog, root, words["v"])
                return web.Response(body=body, headers={"Content-Type": media, "Vary": "Accept"})
        if root == "api":
            return _json(discovery.core_versions(request.host))
        return _json(discovery.groups(self._store.catalog))


def _manager(request: web.BaseRequest, media: str) -> str:
    """The writer's name in managedFields: the fieldManager parameter, else the program of the User-Agent."""
    given = request.query.get("fieldManager", "")
    if given or media == APPLY_PATCH:
        return given
    return request.headers.get("User-Agent", "unknown").partition("/")[0]


def _number(text: str | None, what: str) -> int | None:
    """A parameter that is a number.

    Raises:
        ApiError: 400.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_request(f"{what} is a number, found {text!r}")
    return int(text)


def _json(body: Object, code: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=code, content_type=_JSON)


def _found(body: Object | None) -> web.Response:
    if body is None:
        raise status.no_such_path()
    return _json(body)


def refusal(error: ApiError) -> web.Response:
    """The answer to a request that is refused."""
    answer = _json(error.status, error.code)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer
