"""A small project on techdeck-tasks: three tasks and a kind of stage."""

from typing import Any

from celery import Celery
from pydantic import BaseModel

from techdeck_tasks import RetryPolicy, StageContext, StageResult, TechDeckTask, install, stage

app = Celery("lab")
install(app)


@app.task(name="lab.cached_results")
def cached_results(order_id: str) -> dict[str, Any]:
    return {"order_id": order_id, "results": []}


@app.task(
    base=TechDeckTask,
    name="lab.fetch_results",
    service="laboratory",
    retry=RetryPolicy(max_retries=3, delay_s=600),
    fallback="lab.cached_results",
)
def fetch_results(order_id: str) -> dict[str, Any]:
    return {"order_id": order_id, "results": [4.2]}


@app.task(base=TechDeckTask, bind=True, name="lab.send_report", service="mail")
def send_report(self: Any, found: dict[str, Any]) -> str:
    if not found["results"] and self.request.retries == 0:
        # Nothing yet: look again in an hour.
        raise self.retry(countdown=3600)
    return f"report on {found['order_id']}"


class HeadParams(BaseModel):
    rows: int = 10


@stage("head", params=HeadParams, summary="keep the first rows")
def head(context: StageContext, params: HeadParams) -> StageResult:
    return StageResult(output=context.input().head(params.rows), report={"limit": params.rows})
