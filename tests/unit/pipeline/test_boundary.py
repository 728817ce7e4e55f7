"""Where sources and destinations may lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from techdeck_tasks.errors import AuthorizationError, ValidationError
from techdeck_tasks.pipeline.data import workspace
from techdeck_tasks.pipeline.data.artifacts import ArtifactStore
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.definition import SourceSpec
from techdeck_tasks.pipeline.registry import StageContext
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams
from techdeck_tasks.pipeline.stages.dataset_load import dataset_load
from techdeck_tasks.pipeline.stages.export import ExportParams, export

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import Web


def refused(boundary: Boundary, url: str) -> bool:
    try:
        boundary.check([("source.url", url)])
    except AuthorizationError:
        return True
    return False


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "service" / "keys"
    folder.mkdir(parents=True)
    (folder / "key.csv").write_text("secret\n1\n")
    return folder


@pytest.mark.parametrize(
    "form",
    [
        "{keys}/key.csv",
        "file://{keys}/key.csv",
        "local://{keys}/key.csv",
        "FILE:{keys}/key.csv",
        "{keys}/../keys/key.csv",
        "{keys}",
        "zip://a.csv::{keys}/key.zip",
        "simplecache::file://{keys}/key.csv",
    ],
)
def test_no_way_of_writing_a_path_leads_into_a_folder_of_the_service(keys: Path, form: str) -> None:
    assert refused(Boundary((keys,)), form.format(keys=keys))


def test_a_link_into_a_folder_of_the_service_is_followed(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "harmless.csv").symlink_to(keys / "key.csv")
    assert refused(Boundary((keys,)), str(tmp_path / "harmless.csv"))


@pytest.mark.parametrize(
    "url",
    [
        "/proc/self/environ",
        "/sys/kernel/notes",
        f"/tmp/{workspace.PREFIX}x/plain.parquet",
        "reference::https://h.test/a.json",
        "dir://x::/data",
    ],
)
def test_what_a_process_was_told_and_ways_that_may_end_anywhere_are_refused(url: str) -> None:
    assert refused(Boundary(), url)


@pytest.mark.parametrize(
    "url", ["data.csv", "/data/a.csv", "https://h.test/a.csv", "upload://1/a.csv", "s3://b/a"]
)
def test_without_roots_other_places_are_free(keys: Path, url: str) -> None:
    assert not refused(Boundary((keys,)), url)


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("/data/in/a.csv", False),
        ("/data/in", False),
        ("file:///data/in/a.csv", False),
        ("zip://a.csv::/data/in/a.zip", False),
        ("/data/inside.csv", True),
        ("/data/in/../out/a.csv", True),
        ("https://h.test/open/a.csv", False),
        ("simplecache::https://h.test/open/a.csv", False),
        ("https://h.test/opened.csv", True),
        ("https://h.test/open/../shut.csv", True),
        ("https://h.test/open/%2e%2e/shut.csv", True),
        ("https://h.test@evil.test/open/a.csv", True),
        ("http://h.test/open/a.csv", True),
        ("upload://1/a.csv", False),
    ],
)
def test_with_roots_all_data_is_below_one_of_them(url: str, *, is_refused: bool) -> None:
    assert refused(Boundary(roots=("/data/in/", "https://h.test/open")), url) is is_refused


def test_no_roots_at_all_leave_uploads_alone() -> None:
    assert [refused(Boundary(roots=()), url) for url in ("a.csv", "s3://b/a", "upload://1/a.csv")] == [
        True,
        True,
        False,
    ]


def test_what_a_pattern_finds_is_checked_file_by_file(
    keys: Path, tmp_path: Path, stage_context: StageContext
) -> None:
    (tmp_path / "service" / "open.csv").write_text("n\n1\n")
    source = SourceSpec(url=str(tmp_path / "serv*" / "**" / "*.csv"))
    context = replace(stage_context, source=source, boundary=Boundary((keys,)))
    with pytest.raises(AuthorizationError, match="belongs to the service"):
        context.source_files()
    assert len(replace(context, boundary=Boundary()).source_files()) == 2


@pytest.mark.parametrize("form", ["{url}/in/a.csv", "{url}/in/*.csv", "simplecache::{url}/in/a.csv"])
def test_a_server_below_a_root_cannot_redirect_to_another_place(
    form: str, stage_context: StageContext, web: Web
) -> None:
    elsewhere = {"Location": f"{web.url}/in/../private/secret.csv"}
    web.answers |= {"/in/a.csv": (302, elsewhere, b""), "/in/": (302, elsewhere, b"")}
    web.answers["/private/secret.csv"] = (200, {}, b"n\n1\n")
    source = SourceSpec(url=form.format(url=web.url), format="csv")
    context = replace(stage_context, source=source, boundary=Boundary(roots=(f"{web.url}/in",)))
    with pytest.raises(AuthorizationError, match=r"is redirected: .*/private/secret\.csv is not below"):
        dataset_load(context, DatasetLoadParams())


def test_a_redirect_that_stays_below_the_roots_is_followed(stage_context: StageContext, web: Web) -> None:
    web.answers["/in/a.csv"] = (307, {"Location": "newest/b.csv"}, b"")
    web.answers["/in/newest/b.csv"] = (200, {}, b"n\n1\n")
    source = SourceSpec(url=f"{web.url}/in/a.csv")
    context = replace(stage_context, source=source, boundary=Boundary(roots=(f"{web.url}/in",)))
    assert dataset_load(context, DatasetLoadParams()).report["rows"] == 1


def test_a_link_that_leads_to_itself_is_no_file(tmp_path: Path, stage_context: StageContext) -> None:
    (tmp_path / "a.csv").symlink_to("a.csv")
    context = replace(stage_context, source=SourceSpec(url=str(tmp_path / "a.csv")))
    with pytest.raises(ValidationError, match="there is no file"):
        dataset_load(context, DatasetLoadParams())


def test_a_text_about_a_place_shows_no_password() -> None:
    with pytest.raises(AuthorizationError) as caught:
        Boundary(roots=()).check([("source.url", "https://ada:horse@h.test/a.csv?sig=1")])
    assert "horse" not in str(caught.value)
    assert "sig" not in str(caught.value)


def test_an_export_that_refuses_to_replace_does_not_look_outside_the_roots(
    tmp_path: Path, store: ArtifactStore, stage_context: StageContext, web: Web
) -> None:
    elsewhere = {"Location": f"{web.url}/private/a.csv"}
    web.answers |= {"/out/a.csv": (302, elsewhere, b""), "/private/a.csv": (200, {}, b"n\n1\n")}
    (tmp_path / "export").mkdir()
    inputs = {"before": store.write(pl.DataFrame({"n": [1]}), "run", "before", 0)}
    boundary = Boundary(roots=(f"{web.url}/out",))
    context = replace(stage_context, inputs=inputs, boundary=boundary, workspace=tmp_path / "export")
    params = ExportParams(destination=f"{web.url}/out/a.csv", overwrite="refuse")
    with pytest.raises(AuthorizationError, match=r"is redirected: .*/private/a\.csv is not below"):
        export(context, params)
