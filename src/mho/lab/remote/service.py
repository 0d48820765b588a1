"""The calls of the server: who may call, how long a message may take, what is refused in which words.

Every method is served as a stream of raw bytes, so that a call is admitted or refused by its metadata alone, before
any message is read or memory is spent on it. On the wire a call of one message looks the same.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, final

import grpc
from grpc_health.v1 import health_pb2

from mho.errors import DeviceFault, MhoError, RangeError, TransportError
from mho.lab.remote import messages, replies
from mho.lab.remote.lease import Lease
from mho.lab.remote.limits import Limits, Rate
from mho.lab.remote.messages import SERVICE
from mho.lab.remote.status import ERROR_KEY, Refused, status_of
from mho.lab.remote.worker import Worker

HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_CLIENT = 128
log = logging.getLogger(__name__)

Method = Callable[[Any, str], Awaitable[None]]


class _NotTaken(Refused):
    """An answer stands at the door of a client that does not read."""

    def __init__(self, write: "asyncio.Future[None]", patience_s: float) -> None:
        text = f"the answer was not taken for {patience_s:g} s. Way out: read the answers as they come."
        super().__init__(grpc.StatusCode.DEADLINE_EXCEEDED, TransportError, text)
        self.write = write


@final
class Service:
    """Serves a worker; all of it runs in one event loop, and only the device itself in a thread of its own."""

    def __init__(self, worker: Worker, limits: Limits, token: str | None) -> None:
        self._worker = worker
        self._limits = limits
        self._token = token
        self._lease = Lease(limits.idle_s)
        self._closing = asyncio.Event()
        self._holder_rate = Rate(limits.calls_per_s)
        self._others_rate = Rate(limits.calls_per_s)
        self._methods: dict[str, Method] = {
            "Describe": self._describe,
            "Hold": self._hold,
            "Program": self._once(worker.program),
            "Read": self._once(worker.read),
            "Mvm": self._mvm,
            "Calibrate": self._once(worker.calibrate),
            "Health": self._health,
            "Wait": self._once(worker.wait),
            "Release": self._release,
        }

    def handlers(self) -> tuple[Any, Any]:
        """What a server of gRPC is given: this service, and the standard health service."""
        ours = {name: grpc.stream_stream_rpc_method_handler(self._guarded(m)) for name, m in self._methods.items()}
        health = {"Check": grpc.stream_stream_rpc_method_handler(self._check)}
        return (
            grpc.method_handlers_generic_handler(SERVICE, ours),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
        )

    def close(self) -> None:
        """Let the lines to clients end, so that the server can stop at once."""
        self._closing.set()

    def _guarded(self, method: Method) -> Callable[[Any, Any], Awaitable[None]]:
        async def handle(_: Any, context: Any) -> None:
            try:
                await method(context, self._admit(context))
            except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.UsageError):
                raise  # the client is gone, or has its answer
            except _NotTaken as late:
                # gRPC cannot take a write back: the words wait behind it, and the device works for others.
                await late.write
                await context.abort(late.status.code, late.status.text, ((ERROR_KEY, late.status.kind),))
            except Exception as error:
                status = status_of(error)
                if status.kind == DeviceFault.__name__:
                    # What a driver raises by mistake is shown with its place; what it says on purpose needs none.
                    log.warning("%s", status.text, exc_info=None if isinstance(error, MhoError) else error)
                await context.abort(status.code, status.text, ((ERROR_KEY, status.kind),))

        return handle

    def _admit(self, context: Any) -> str:
        """The client's name, if its token is right."""
        given = dict(context.invocation_metadata() or ())
        if self._token is not None:
            said = str(given.get("authorization", "")).removeprefix("Bearer ")
            # The same time for every wrong token: nothing can be learnt from how long it takes.
            if not hmac.compare_digest(said.encode(), self._token.encode()):
                raise Refused(grpc.StatusCode.UNAUTHENTICATED, RangeError, "wrong or no token. Fix: give token=...")
        client = str(given.get("mho-client", ""))
        if not 0 < len(client) <= MAX_CLIENT:
            raise RangeError(f"metadata mho-client: {len(client)} characters. Fix: a name of 1 to {MAX_CLIENT}.")
        return client

    def _pace(self, rate: Rate) -> None:
        wait_s = rate.wait_s()
        if wait_s:
            text = f"more than {self._limits.calls_per_s:g} calls a second. Way out: wait {wait_s:.3g} s."
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, TransportError, text)

    async def _message(self, context: Any) -> bytes | None:
        """The next message; ``None`` at the end of the stream."""
        try:
            found = await asyncio.wait_for(context.read(), self._limits.patience_s)
        except TimeoutError:
            text = f"no message for {self._limits.patience_s:g} s. Way out: send it whole, or end the stream."
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, TransportError, text) from None
        return None if found is grpc.aio.EOF else bytes(found)

    async def _one(self, context: Any) -> bytes:
        raw = await self._message(context)
        if raw is None:
            raise RangeError("a call without a message. Fix: send one.")
        return raw

    async def _answer(self, context: Any, answer: bytes) -> None:
        if len(answer) > self._limits.message_bytes:
            raise RangeError(
                f"the answer has {len(answer)} bytes, allowed {self._limits.message_bytes}. "
                "Fix: fewer vectors or repeats a call."
            )
        write = asyncio.ensure_future(context.write(answer))
        write.add_done_callback(_noted)
        await asyncio.wait({write}, timeout=self._limits.patience_s)
        if not write.done():
            raise _NotTaken(write, self._limits.patience_s)
        write.result()

    def _description(self) -> bytes:
        return replies.description_reply(self._worker.can, self._limits.message_bytes)

    async def _describe(self, context: Any, client: str) -> None:
        self._pace(self._holder_rate if client == self._lease.holder else self._others_rate)
        messages.read_ask(await self._one(context))
        await self._answer(context, self._description())

    async def _health(self, context: Any, client: str) -> None:
        self._pace(self._holder_rate if client == self._lease.holder else self._others_rate)
        work = self._worker.health(client, await self._one(context))
        await self._answer(context, await asyncio.wrap_future(work))

    async def _hold(self, context: Any, client: str) -> None:
        self._pace(self._others_rate)
        messages.read_ask(await self._one(context))
        with self._lease.grip(client):
            await self._answer(context, self._description())
            await self._closing.wait()  # or until the client ends the call, or its connection is lost

    async def _release(self, context: Any, client: str) -> None:
        messages.read_ask(await self._one(context))
        self._lease.free(client)
        await self._answer(context, messages.done_message())

    def _once(self, work: Callable[[str, bytes], "Future[bytes]"]) -> Method:
        async def call(context: Any, client: str) -> None:
            with self._lease.call(client):
                self._pace(self._holder_rate)
                future = work(client, await self._one(context))
                await self._answer(context, await asyncio.wrap_future(future))

        return call

    async def _mvm(self, context: Any, client: str) -> None:
        """Reads ahead while the device works and answers are sent; all three in the order of the stream."""
        waiting: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue(self._limits.pipeline)
        under_way: set[asyncio.Future[bytes]] = set()

        async def read_ahead() -> None:
            while (raw := await self._message(context)) is not None:
                self._lease.take(client)  # it may have let go while its stream goes on
                work = asyncio.wrap_future(self._worker.mvm(client, raw))
                under_way.add(work)
                work.add_done_callback(_noted)
                await waiting.put(work)
            await waiting.put(None)

        with self._lease.call(client):
            self._pace(self._holder_rate)
            reader = asyncio.ensure_future(read_ahead())
            reader.add_done_callback(_noted)
            try:
                while (work := await _first(waiting, reader)) is not None:
                    await self._answer(context, await work)
                    under_way.discard(work)
            finally:
                # What waits for the device is called off: nobody will take the answers.
                reader.cancel()
                for work in under_way:
                    work.cancel()

    async def _check(self, _: Any, context: Any) -> None:
        """The standard health service: whether this server serves. It needs no token and says nothing of the chip."""
        request = health_pb2.HealthCheckRequest.FromString(await self._one(context))
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        await context.write(serving.SerializeToString())


async def _first(waiting: "asyncio.Queue[asyncio.Future[bytes] | None]", reader: "asyncio.Future[None]") -> Any:
    """The next of the queue; what the reader raises, as soon as what it read before is answered."""
    if not waiting.empty():
        return waiting.get_nowait()
    getter = asyncio.ensure_future(waiting.get())
    try:
        ends: set[asyncio.Future[Any]] = {getter, reader}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not getter.done() and reader.done():
            reader.result()  # raises, if it ended by an error
        return await getter
    finally:
        getter.cancel()


def _noted(done: "asyncio.Future[Any]") -> None:
    """An error of a future that nobody waits for any more is no news."""
    if not done.cancelled():
        done.exception()
