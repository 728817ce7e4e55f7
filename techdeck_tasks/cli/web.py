"""``techdeck web``: the HTTP API and the dashboard, in the foreground."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from techdeck_tasks.cli.console import err
from techdeck_tasks.cli.exits import Terminated
from techdeck_tasks.runtime import configure_logging, create_app, runtime_of
from techdeck_tasks.settings import SettingsError


def web(
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine put a proxy with TLS in front.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8080,
) -> None:
    """Serve the HTTP API and the dashboard until Ctrl-C; tokens: techdeck token create."""
    try:
        from techdeck_tasks.web.app import create_web_app  # noqa: PLC0415 - an optional extra
        from techdeck_tasks.web.server import make_server  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the web server is not installed ({error.name}); pip install 'techdeck-tasks[web]'"
        ) from None
    runtime = runtime_of(create_app())
    configure_logging(runtime.settings)
    err.print(f"  http://{host}:{port}", soft_wrap=True)
    with suppress(KeyboardInterrupt, Terminated):  # how it is ended
        make_server(create_web_app(runtime), host=host, port=port).run()
