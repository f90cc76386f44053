"""`steprnn serve`: the model behind the OpenAI completions protocol."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from ..claims import temporary_folder
from ..errors import UsageError
from . import _engine_flags
from ._aliases import alias

HELP = "serve the OpenAI completions protocol"
EXAMPLE = "  steprnn serve lyrics.bundle --port 8000"
NEEDS = {"starlette": "serve", "uvicorn": "serve"}
KEY = "STEPRNN_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is every one")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port; 0 takes a free one")
    name = parser.add_argument("--name", help="what clients call the model (default: the name of the bundle)")
    alias(name, "-a", "--alias", "--served-model-name", of=parser)
    parser.add_argument("--page", action="store_true", help="also serve the web page of the model, at /")
    parser.add_argument(
        "--ort",
        type=Path,
        metavar="FOLDER",
        help="node_modules with onnxruntime-web (default: npm fetches it)",
    )
    parser.add_argument(
        "--api-key", action="store_true", help=f"refuse to start without a key in the variable {KEY}"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages that may ask, such as https://app.example; may be repeated, * is any",
    )
    parser.add_argument(
        "--sessions",
        type=Path,
        metavar="FILE",
        help="keep texts that go on from one request to the next, in a file of SQLite",
    )
    rows = parser.add_argument_group("limits")
    batch = rows.add_argument(
        "--batch", type=int, default=64, metavar="N", help="texts that are written at once"
    )
    alias(batch, "-np", "--parallel", of=rows)
    rows.add_argument("--queue", type=int, default=256, metavar="N", help="texts that may wait for that")
    rows.add_argument(
        "--per-client",
        type=int,
        default=80,
        metavar="N",
        help="texts of one address at once; loopback has no limit",
    )
    rows.add_argument("--max-tokens", type=int, default=4096, metavar="N", help="of one text")
    rows.add_argument("--max-prompt", type=int, default=4096, metavar="N", help="characters of one prompt")
    rows.add_argument("--max-choices", type=int, default=16, metavar="N", help="texts of one request")
    rows.add_argument("--grace", type=int, default=30, metavar="N", help="seconds for streams in flight")
    _engine_flags.add_arguments(parser.add_argument_group("engine"))


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, finish the streams in flight, and return 0."""
    from ..serve.app import Service
    from ..serve.arrivals import Server
    from ..serve.connection import Door, configured, most_connections
    from ..serve.guard import checked_origins, is_loopback
    from ..serve.protocol import Limits
    from ..serve.sessions import Sessions

    least = {
        "batch": 1,
        "queue": 0,
        "per_client": 1,
        "max_tokens": 1,
        "max_prompt": 1,
        "max_choices": 1,
        "grace": 0,
    }
    for flag, at_least in least.items():
        if (value := getattr(arguments, flag)) < at_least:
            raise UsageError(f"--{flag.replace('_', '-')} is {value}; expected at least {at_least}")
    key = os.environ.get(KEY) or None
    if arguments.api_key and key is None:
        raise UsageError(f"--api-key is given and the variable {KEY} is not set; set it to the key")
    origins = checked_origins(arguments.allow_origin)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(arguments.host, arguments.port))
        model = _engine_flags.load_model(arguments)
        page = _page(arguments, stack) if arguments.page else None
        limits = Limits(
            prompt=arguments.max_prompt, tokens=arguments.max_tokens, choices=arguments.max_choices
        )
        name = arguments.name or Path(arguments.bundle).stem
        service = Service(
            model,
            name,
            limits,
            arguments.batch,
            arguments.queue,
            arguments.per_client,
            key,
            page,
            origins,
            Sessions(arguments.sessions, model) if arguments.sessions is not None else None,
            (arguments.host,) if key is None and is_loopback(listener.getsockname()[0]) else None,
        )
        door = Door(service.gate, most_connections())
        server = Server(configured(service.app(), door, arguments.grace), door)

        def finish(number: int, frame: object) -> None:
            server.should_exit = True

        # uvicorn has handlers of its own while it runs, and sends itself the signal again at the end: with
        # Python's handlers that would be a traceback, or an exit code other than 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, finish)
        _tell(listener, service.name, f"{model.engine} {model.artefact.variant}", arguments.host, key)
        sys.setswitchinterval(5e-4)  # the event loop and the batch take turns; 5 ms is many steps
        server.run(sockets=[listener])
    return 0


def _page(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Path:
    """The web page of the bundle, in a temporary folder."""
    from ..bundle.manifest import VARIANTS, Manifest
    from ..bundle.open import read_bundle
    from ..package import web

    folder = Path(stack.enter_context(temporary_folder())) / "page"
    bundle = read_bundle(arguments.bundle)
    variant = arguments.variant
    if variant == "auto":  # of the ONNX graphs, which the page runs; the server may run another format
        held = Manifest.read(bundle)
        variant = next((v for v in VARIANTS if held.artefact("onnx", v)), VARIANTS[0])
    return web.write(bundle, folder, variant=variant, ort=arguments.ort)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}; expected 0 to 65535")
    with contextlib.ExitStack() as unfit:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = unfit.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(4096)  # clients may come from now on; they wait until the server takes them
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host} port {port} ({error.strerror}); choose another --host or --port"
            ) from None
        unfit.pop_all()
    return listener


def _tell(listener: socket.socket, name: str, engine: str, host: str, key: str | None) -> None:
    from ..serve.guard import is_loopback

    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    needed = f", with the key in {KEY}" if key else ""
    sys.stderr.write(f"{name} ({engine}) at http://{shown}:{port}/v1{needed}; Ctrl-C stops it\n")
    if not key and not is_loopback(address):
        sys.stderr.write(f"anybody who reaches {host} may use it; set {KEY} to ask for a key\n")
    sys.stderr.flush()
