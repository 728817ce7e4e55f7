"""The demo's dashboard: served until somebody has seen enough."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from techdeck_tasks.cli.console import out
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.web.tokens import Role, TokenStore

LIFETIME = timedelta(hours=12)
NAME = "demo"


def serve_dashboard(runtime: Runtime) -> None:
    """Print address and a fresh token, and serve until Ctrl-C."""
    from techdeck_tasks.web.app import create_web_app  # noqa: PLC0415 - an optional extra
    from techdeck_tasks.web.server import make_server  # noqa: PLC0415 - as above

    runtime.record_action("web", "token.create", NAME, token=NAME, roles=sorted(Role))
    tokens = TokenStore(runtime.engine, runtime.clock)
    _, secret = tokens.create(f"{NAME}-{len(tokens.list()) + 1}", list(Role), LIFETIME, created_by=NAME)
    port = free_port()
    out.print(f"  open   http://127.0.0.1:{port}", soft_wrap=True)
    out.print(f"  token  {secret}", markup=False, soft_wrap=True)
    out.print("  Ctrl-C ends it")
    with suppress(KeyboardInterrupt):  # how it is ended
        make_server(create_web_app(runtime), host="127.0.0.1", port=port).run()
