"""Detect on pictures that come over HTTP: a run or an exported file as a small server.

Examples:
  ssd_centernet serve --model_dir=runs/ssd300
  ssd_centernet serve --model=exported/ssd300/model.onnx --port=8090

It listens on 127.0.0.1, for programs of this machine alone, until Ctrl-C or SIGTERM; then it
answers what it has accepted, and ends. `POST /detect` takes a picture (JPEG, PNG or WebP: the
bytes, or a form with one file) and answers JSON, `POST /draw` answers a drawing; `?min_score=0.5`
and `?classes=cat,dog` choose. `/` is a page to drop pictures on. `/model`, `/healthz`, `/readyz`
and `/metrics` tell the state. It asks nobody for a password and encrypts nothing: put a proxy in
front of it where others are to use it. Needs: pip install ssd_centernet[serve].
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet import __version__
from ssd_centernet.cli import _flags, _runs
from ssd_centernet.data_service.addresses import is_loopback
from ssd_centernet.plain_text import counted
from ssd_centernet.serve.settings import LOCAL_NAMES, Settings, host_of

if TYPE_CHECKING:
    from ssd_centernet.labels import LabelMap
    from ssd_centernet.serve.engine import Engine

_DEFAULTS = Settings()
_PORT = 8080
_BATCH_SIZE = 8
_MEGABYTE = 2**20
# Module -> the package that brings it.
_NEEDED = {
    "uvicorn": "uvicorn",
    "starlette": "starlette",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def define_flags() -> None:
    """Define the flags of this command."""
    _runs.define_run_flags()
    _runs.define_model()
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to listen on. Any other than this machine's own asks for --allowed_hosts.",
    )
    flags.DEFINE_integer(
        "port", _PORT, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535
    )
    flags.DEFINE_list(
        "allowed_hosts",
        None,
        "Names in the Host header that are answered, beside localhost and its addresses; * for "
        "any. Others are refused, so that pages of strangers cannot use the server.",
    )
    flags.DEFINE_float(
        "min_score",
        _DEFAULTS.min_score,
        "Lowest score of a detection in the answer to a request that names none, 0..1.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_float(
        "max_wait_ms",
        1000 * _DEFAULTS.max_wait,
        "Milliseconds that a picture waits for others to fill a batch, where others are on their "
        "way.",
        lower_bound=0.0,
        upper_bound=1000.0,
    )
    flags.DEFINE_float(
        "max_megabytes",
        _DEFAULTS.max_bytes / _MEGABYTE,
        "Most MiB of a request's body.",
        lower_bound=0.01,
        upper_bound=1024.0,
    )
    flags.DEFINE_integer(
        "max_pixels",
        _DEFAULTS.max_pixels,
        "Most pixels of a picture; larger ones are refused before they are decoded.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "max_waiting",
        _DEFAULTS.max_waiting,
        "Most pictures that are answered at a time; more requests are refused with status 503.",
        lower_bound=1,
        upper_bound=4096,
    )
    flags.DEFINE_float(
        "max_rate",
        _DEFAULTS.max_rate,
        "Most pictures a second from one address; more are refused with status 429. 0 sets no "
        "limit.",
        lower_bound=0.0,
    )
    flags.DEFINE_float(
        "timeout",
        _DEFAULTS.seconds,
        "Seconds that a request may take, from its head to its answer.",
        lower_bound=0.1,
        upper_bound=3600.0,
    )
    flags.DEFINE_float(
        "stop_timeout",
        _DEFAULTS.stop_seconds,
        "Seconds for the answers to accepted requests after a signal.",
        lower_bound=1.0,
        upper_bound=3600.0,
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        0 where every accepted request was answered, otherwise 1.
    """
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    if values.model is not None:
        _runs.refuse_with_model("batch_size")
    else:
        _flags.require("model_dir")
    settings = _settings()
    _check_packages()
    from ssd_centernet.serve.app import App
    from ssd_centernet.serve.running import listen, serve, warning_of

    # Before the model is loaded, which takes longer than to find out that the port is taken.
    with listen(values.host, values.port) as listener:
        engine, labels, facts = _opened(settings)
        engine.warm()
        app = App(settings=settings, labels=labels, facts=facts)
        port = listener.getsockname()[1]

        def started() -> None:
            shown = f"[{values.host}]" if ":" in values.host else values.host
            if warning := warning_of(values.host, port):
                print(f"warning: {warning}", file=sys.stderr)
            print(f"{facts['name']}: http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)

        left = serve(app, engine, listener, settings, started=started)
    if left:
        print(
            f"{counted(left, 'request')} had no answer {settings.stop_seconds:g} s after the "
            "signal: given up. --stop_timeout gives more time.",
            file=sys.stderr,
        )
    return 1 if left else 0


def _settings() -> Settings:
    values = flags.FLAGS
    given = [host_of(name) for name in values.allowed_hosts or ()]
    # An empty name would stand for requests that name nobody.
    if not all(given):
        raise flags.Error(
            f"--allowed_hosts={','.join(values.allowed_hosts)} has an empty name: expected names "
            "with commas between them, such as detect.example.org,10.0.0.5,[::1]; an address of "
            "version 6 in brackets."
        )
    if not is_loopback(values.host) and not given:
        raise flags.Error(
            f"--host={values.host} lets other machines use this server, which asks nobody for a "
            "password. If that is meant, say under which names they reach it, such as "
            "--allowed_hosts=detect.example.org (or * for any); else leave --host out."
        )
    return Settings(
        hosts=(*LOCAL_NAMES, *given),
        min_score=values.min_score,
        max_bytes=int(values.max_megabytes * _MEGABYTE),
        max_pixels=values.max_pixels,
        max_waiting=values.max_waiting,
        max_rate=values.max_rate,
        max_wait=values.max_wait_ms / 1000,
        seconds=values.timeout,
        stop_seconds=values.stop_timeout,
    )


def _check_packages() -> None:
    missing = [
        package for module, package in _NEEDED.items() if not importlib.util.find_spec(module)
    ]
    if missing:
        raise ImportError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which "
            'the server needs: pip install "ssd_centernet[serve]".'
        )


def _opened(settings: Settings) -> tuple[Engine, LabelMap, dict[str, Any]]:
    """Open the run or the file that the flags name: its engine, its classes, and what is told."""
    from ssd_centernet.serve.engine import FileEngine, RunEngine

    values = flags.FLAGS
    facts: dict[str, Any] = {}
    if values.model is not None:
        from ssd_centernet.export.exported import ExportedDetector

        exported = ExportedDetector(values.model)
        engine, labels = FileEngine(exported), exported.label_map
        path = Path(values.model).resolve()
        facts["name"] = f"{path.parent.name}/{path.name}"
    else:
        run = _runs.open_run_of_flags(checkpoint=values.checkpoint)
        engine = RunEngine(run.detector, values.batch_size or _BATCH_SIZE)
        labels = run.label_map
        facts["name"] = f"{Path(values.model_dir).resolve().name}/{Path(run.checkpoint).name}"
    facts |= {
        "version": __version__,
        "input": engine.frame and list(map(int, engine.frame)),
        "batch_size": engine.batch_size,
        "classes": labels.to_categories(),
        "min_score": settings.min_score,
        "limits": {
            "bytes": settings.max_bytes,
            "pixels": settings.max_pixels,
            "waiting": settings.max_waiting,
            "rate": settings.max_rate or None,
            "seconds": settings.seconds,
        },
    }
    return engine, labels, facts
