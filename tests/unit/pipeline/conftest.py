from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline.data.artifacts import ArtifactStore
from techdeck_tasks.pipeline.definition import SourceSpec
from techdeck_tasks.pipeline.registry import StageContext, StageResult, find_stage


@dataclass
class Web:
    """A web server that answers as it is told: path to (status, headers, body)."""

    url: str = ""
    answers: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, web: Web, *args: Any) -> None:
        self._web = web
        super().__init__(*args)

    def do_GET(self) -> None:
        status, headers, body = self._web.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


RunStage = Callable[..., StageResult]


@pytest.fixture
def store(tmp_path: Path, cipher: Cipher) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), cipher)


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(KeySet("test", {"test": bytes(32)}))


@pytest.fixture
def stage_context(tmp_path: Path, store: ArtifactStore) -> StageContext:
    """The context of a stage without a source and input that are there."""
    return StageContext(
        run_id="run",
        stage="stage",
        attempt=0,
        source=SourceSpec(url="none.csv"),
        inputs={},
        artifacts=store,
        workspace=tmp_path,
        upload_folder=tmp_path / "uploads",
    )


@pytest.fixture
def run_stage(tmp_path: Path, store: ArtifactStore, stage_context: StageContext) -> RunStage:
    """Return a function that runs a stage of a kind on a frame, with parameters as a definition has them."""

    def run(
        kind: str, frame: pl.DataFrame | None = None, *, source: str = "none.csv", **params: Any
    ) -> StageResult:
        found = find_stage(kind)
        workspace = tmp_path / f"workspace-{len(list(tmp_path.iterdir()))}"
        workspace.mkdir()
        inputs = {} if frame is None else {"before": store.write(frame, "run", "before", 0)}
        context = replace(
            stage_context,
            stage=kind,
            source=SourceSpec(url=source),
            inputs=inputs,
            workspace=workspace,
        )
        return found.body(context, found.params.model_validate(params))

    return run


@pytest.fixture
def rows_of(store: ArtifactStore, tmp_path: Path) -> Callable[[StageResult], pl.DataFrame]:
    """Return a function that reads the output of a stage."""

    def read(result: StageResult) -> pl.DataFrame:
        assert result.output is not None
        if isinstance(result.output, pl.LazyFrame | pl.DataFrame):
            return result.output.lazy().collect()
        return store.scan(result.output, tmp_path).collect()

    return read


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was not run, and why: quiet mode would show a letter only."""
    for report in terminalreporter.stats.get("skipped", []):
        if "/pipeline/" in report.nodeid:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"NOT RUN {report.nodeid}: {reason}")
