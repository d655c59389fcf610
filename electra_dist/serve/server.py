"""The command's work: load the model, bind the address, answer until a signal comes, end."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

from electra_dist.console import say, warn
from electra_dist.errors import EXIT_CTRL_C, EXIT_OK, UserError
from electra_dist.serve.answers import ServedModel, open_detector, open_model
from electra_dist.serve.schema import input_form
from electra_dist.serve.settings import Settings

if TYPE_CHECKING:
    import torch

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Connections that wait for the server to accept them.
_BACKLOG = 2048
#: How much longer than a request the end of the server may take.
_LAST_SECONDS = 5


def token_of(variable: str | None) -> str | None:
    """The token that an environment variable holds; raises `UserError` where it holds none."""
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token or token != token.strip() or not token.isascii():
        raise UserError(
            f"`token_env` {variable}: this environment variable is not set, empty, or has spaces"
            " around it; expected a token of ASCII characters"
        )
    return token


def serve(settings: Settings) -> int:
    """Answer until SIGTERM or Ctrl-C; what is asked until then is answered first. A second Ctrl-C
    waits for nothing. Returns the exit status.

    Raises `UserError` for a setting that makes no sense, an address that cannot be bound, a folder
    that cannot be loaded.
    """
    settings.check()
    with _bound(settings.host, settings.port) as bound:
        return _run(settings, bound)


def _run(settings: Settings, bound: socket.socket) -> int:
    import torch
    import uvicorn

    from electra_dist.parallel.hardware import device_of_command
    from electra_dist.serve.app import make_app

    threads = settings.threads or _threads(settings.workers)
    torch.set_num_threads(threads)
    device = device_of_command("cpu" if settings.onnx else settings.device)
    models = [_open(settings, device, threads) for _ in range(settings.workers)]
    example = input_form(models[0].kind, models[0].fields).example
    for model in models:  # what is loaded at the first use
        model.predict([model.item(example, "the example")])
    app = make_app(models, settings)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.batcher.hurry()  # nobody comes any more whom an input could wait for
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        server_header=False,
        timeout_graceful_shutdown=round(settings.limits.timeout_seconds) + _LAST_SECONDS,
    )
    server = Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in _SIGNALS:
        # heard before uvicorn listens, and after it, when it sends itself the signal again
        signal.signal(number, end)
    bound.listen(_BACKLOG)
    _say_where(models[0], bound, settings.token)
    server.run(sockets=[bound])
    if server.force_exit:
        warn("ended at once; some requests may have no answer")
        return EXIT_CTRL_C
    say("ended; every request has its answer")
    return EXIT_OK


def _open(settings: Settings, device: torch.device, threads: int) -> ServedModel:
    """What each worker answers with."""
    from electra_dist.finetune.runners.onnx_runner import Graph

    if settings.suspects:
        return open_detector(settings.folders, settings.generator, device)
    graph = None
    if settings.onnx:
        graph = Graph(settings.int8, threads)
    return open_model(settings.folders, device, graph)


def _threads(workers: int) -> int:
    """What each worker gets of the cores; one core is left for requests and tokenizers."""
    cores = len(os.sched_getaffinity(0))
    return max(1, (cores - 1) // workers)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address, which nobody can connect to yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"`host` {host}: is no address ({error.strerror})") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UserError(
            f"`port` {port} at {host}: cannot be used ({error.strerror}); choose another one"
        ) from error
    return bound


def _say_where(model: ServedModel, bound: socket.socket, token: str | None) -> None:
    host, port = bound.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback and token is None:
        warn(
            f"{host} can be reached from other machines, and nobody is asked who they are; set a"
            " token with `token_env`, or put a server before it that does"
        )
    if ":" in host:
        host = f"[{host}]"
    say(f"{model.name} ({model.kind}) answers at http://{host}:{port}, its documentation at /docs")
