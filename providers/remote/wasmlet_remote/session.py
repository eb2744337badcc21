"""How a node loop takes an agent over: it begins a session, and every older one is over."""

from __future__ import annotations

import random
import uuid

import structlog
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import LateDuplicate, OtherNode, SessionOver, Starting
from wasmlet_agent.protocol.messages import NodeDescription, SessionAnswer, SessionRequest

from wasmlet import Backoff, Clock, ConfigError, InvalidInput, NodeContext
from wasmlet.clock import Retries
from wasmlet_remote.link import Away, Link, Untrusted

log = structlog.get_logger(__name__)

RETRIES = Backoff(initial=0.1, cap=1.0, jitter=0.5)
"""Pauses between tries to reach the agent. They are short: the Node is ready within a second of the agent's return."""


class Sessions:
    """Begins sessions with one agent.

    Args:
        context: of the Node that the agent is to make.
    """

    def __init__(self, link: Link, context: NodeContext, clock: Clock, rng: random.Random) -> None:
        self._link = link
        self._node = NodeDescription(
            context.node_name, context.node_ip, context.max_pods, context.cluster_dns, context.cluster_domain
        )
        self._claimant = uuid.uuid4().hex
        self._newest = 0
        self._clock = clock
        self._rng = rng

    async def begin(self, *, again: bool = False) -> SessionAnswer:
        """Begin a session; waits until the agent answers.

        Args:
            again: this node loop had one, which the agent has lost with its disk. A session that it has then is of
                another node loop, unless this one has begun it and not heard of it.

        Raises:
            SessionOver: another node loop has begun one since.
            ConfigError: the agent is another Node's, or does not trust us, or we do not trust it.
        """
        retries, first = Retries(RETRIES, self._clock, self._rng), True
        while True:
            try:
                return await self._try()
            except LateDuplicate as error:
                if again and error.session and error.claimant != self._claimant:
                    raise SessionOver(str(error)) from None
                self._newest = error.session
            except (OtherNode, Untrusted) as error:
                raise ConfigError(str(error)) from None
            except InvalidInput as error:
                raise ConfigError(f"{self._link.url} is no agent that this version can drive: {error}") from None
            except (Away, Starting) as error:
                if first:
                    log.warning("the agent cannot be taken over, trying again", error=str(error))
                first = False
            await retries.wait()

    async def _try(self) -> SessionAnswer:
        request = SessionRequest(self._node, self._claimant, self._newest)
        answer = decode(SessionAnswer, await self._link.ask("POST", "/session", body=encode(request)))
        self._newest = answer.session
        self._link.in_session(answer.session)
        log.info("agent taken over", agent=self._link.url, provider=answer.provider, session=answer.session)
        return answer
