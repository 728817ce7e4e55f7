"""Whether the log's tables are still as the migrations made them: columns, triggers, functions, partitions.

The rows prove themselves. This is about what would let a reader see less than verification does (row level
security, a rule, another table in the way), what would let rows vanish (an unlogged table, a trigger that
drops them) and what no longer refuses a change. A superuser can do all of that and undo it again: that the
schema is whole proves nothing about the past.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Row

from techdeck_tasks.audit import models, review_models
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.storage.database import Base

_REVISIONS = "alembic_version"
_PARTITIONED = ("audit_event", "audit_event_id")
_TABLES: tuple[Table, ...] = tuple(
    Base.metadata.tables[row.__tablename__]
    for row in (
        models.AuditEventRow,
        models.AuditEventId,
        models.AuditWriterHead,
        models.AuditDataKey,
        models.AuditCheckpoint,
        models.AuditTombstone,
        models.AuditHold,
        models.AuditVerifyRun,
        review_models.ComplianceReportRow,
        review_models.SecurityIncident,
    )
)
_NAMES = tuple(table.name for table in _TABLES)

_REFUSE = "techdeck_audit_refuse"
_KEPT = {"refuse_change": _REFUSE, "refuse_truncate": _REFUSE}
_TRIGGERS: dict[str, dict[str, str]] = {
    "audit_event": _KEPT,
    "audit_event_id": _KEPT,
    "audit_writer_head": {
        "refuse_backward": "techdeck_audit_refuse_backward",
        "refuse_delete": _REFUSE,
        "refuse_truncate": _REFUSE,
    },
    "audit_data_key": {
        "refuse_change": "techdeck_audit_only_reseal_or_erase",
        "refuse_delete": _REFUSE,
        "refuse_truncate": _REFUSE,
    },
    "audit_checkpoint": _KEPT,
    "audit_tombstone": _KEPT,
    "audit_hold": {
        "refuse_change": "techdeck_audit_only_release",
        "refuse_delete": _REFUSE,
        "refuse_truncate": _REFUSE,
    },
    "audit_verify_run": _KEPT,
    "compliance_report": {"refuse_change": "techdeck_report_refuse", "refuse_truncate": _REFUSE},
    "security_incident": {},
}
FUNCTIONS = {
    "techdeck_audit_refuse": "0c192ca6ca80b4e46590a4e5958663602eb324956c53252a4c354743db2d388f",
    "techdeck_audit_refuse_backward": "716f188392cc84f35d577e75e0f278e0927a4df738b5fc9835742b8ca32f00ed",
    "techdeck_audit_only_reseal_or_erase": "edc580ea3a35d502fa427bbacc30ce3d06cf9729f823a97acb30d1c6f5c42cb4",
    "techdeck_audit_only_release": "857c4f55ee679e3082d388433e59ea1db0630967cf4bd27cd231c81a20f04877",
    "techdeck_report_refuse": "a8c6d79a27ced1840dbd6e8df7914a13177e4a2ca837b572e8c2db8cdf02e528",
    "techdeck_audit_ensure_partition": "53f29b1fbc0467b918e89f8fb70f2df2c547842ad084c218e66777ff44aee45d",
    "techdeck_audit_key_digests": "c343fe1c78c57371892855fedbc42d28f9cef8aaf2a5abbec88f0af8d2d1c126",
    "techdeck_audit_lock_holds": "f0d5c52cdfa0bdf31159a1a9166fa596e5b138dfc9f5765efa5c60f7c1df0906",
    "techdeck_audit_close_month": "d6980877aeb40042511ffc8fc203189c7ab841e1ce91d00c00ca165be1b4d671",
    "techdeck_audit_drop_month": "2d21035db342de7ad8e95f6d98e81bb29cc25f05aa4a55321cd5092c3a354396",
}
"""SHA-256 of each function's body, as the newest migration has it."""

_RELATIONS = text("""
    WITH tables AS (
        SELECT CAST(to_regclass(name) AS oid) AS oid, name AS parent
        FROM unnest(CAST(:names AS text[])) AS name
    ), all_of_them AS (
        SELECT oid, parent, CAST(NULL AS oid) AS of FROM tables
        UNION ALL
        SELECT inhrelid, parent, tables.oid FROM pg_inherits JOIN tables ON tables.oid = inhparent
    )
    SELECT a.oid, a.parent, a.of IS NOT NULL AS is_partition, c.relname AS name,
        CAST(c.relkind AS text) AS kind, c.relpersistence = 'p' AS logged, c.relrowsecurity AS row_security,
        pg_get_expr(c.relpartbound, c.oid) AS bound,
        EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid) AS rules,
        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
            AND i.indisvalid AND i.indisready AND i.indimmediate) AS keyed,
        ARRAY(SELECT CAST(i.indexrelid AS regclass)::text FROM pg_index i WHERE i.indrelid = c.oid
            AND NOT (i.indisvalid AND i.indisready AND i.indislive)) AS broken_indexes,
        ARRAY(SELECT CAST(i.indexrelid AS regclass)::text FROM pg_index i WHERE i.indrelid = c.oid
            AND i.indisunique AND NOT i.indisprimary) AS unique_indexes,
        ARRAY(SELECT k.conname FROM pg_constraint k WHERE k.conrelid = c.oid
            AND k.contype IN ('c', 'f') AND k.coninhcount = 0) AS constraints,
        ARRAY(SELECT s.nspname || '.' || o.relname
            FROM pg_class o JOIN pg_namespace s ON s.oid = o.relnamespace
            WHERE o.relname = c.relname AND o.oid <> c.oid AND o.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND NOT EXISTS (SELECT FROM pg_class v WHERE v.relnamespace = o.relnamespace
                AND v.relname = 'alembic_version')) AS doubles
    FROM all_of_them a LEFT JOIN pg_class c ON c.oid = a.oid ORDER BY a.parent, is_partition, c.relname
""")
_COLUMNS = text("""
    SELECT attname AS name,
        format_type(atttypid, atttypmod) AS type, attnotnull AS required, attgenerated <> '' AS generated,
        attcollation IN (0, CAST('pg_catalog.default' AS regcollation)) AS plain
    FROM pg_attribute WHERE attrelid = CAST(:oid AS oid) AND attnum > 0 AND NOT attisdropped
""")
_TRIGGERS_THERE = text("""
    SELECT tgrelid AS oid, tgname AS name, proname AS function, tgenabled = 'A' AS always
    FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE NOT tgisinternal AND tgrelid = ANY(CAST(:oids AS oid[]))
""")
_BODIES = text("""
    SELECT proname AS name, prosrc AS body FROM pg_proc
    WHERE proname = ANY(CAST(:names AS text[])) AND pronamespace = (
        SELECT relnamespace FROM pg_class WHERE oid = to_regclass('audit_event'))
""")


@dataclass(frozen=True, slots=True)
class SchemaCheck:
    """What is not as the migrations made it.

    Attributes:
        findings: each difference.
        readable: whether the columns are there as they were. If not, nothing can be recomputed from them.
    """

    findings: tuple[Finding, ...]
    readable: bool


def check_schema(connection: Connection) -> SchemaCheck:
    """Compare the catalogue with the models and with what the migrations made."""
    revision = _revision_of(connection)
    if revision != newest_revision():
        detail = (
            f"the schema is at revision {revision}, this version's is {newest_revision()}; "
            "run 'techdeck db upgrade'"
        )
        return SchemaCheck((_finding(_REVISIONS, detail),), readable=False)
    relations = connection.execute(_RELATIONS, {"names": list(_NAMES)}).all()
    there = {
        found.parent: _columns_of(connection, found.oid) for found in relations if not found.is_partition
    }
    columns = [finding for table in _TABLES for finding in _check_columns(table, there[table.name])]
    others = [finding for table in _TABLES for finding in _strange_columns(table, there[table.name])]
    others += [finding for relation in relations for finding in _check_relation(relation)]
    others += [finding for relation in relations for finding in _check_constraints(relation)]
    others += _check_triggers(connection, relations)
    others += _check_functions(connection)
    return SchemaCheck((*columns, *others), not columns)


def newest_revision() -> str:
    """Return the revision of the newest migration, with which its file's name begins."""
    # Without alembic, whose import takes longer than a small log's verification.
    files = (resources.files("techdeck_tasks.migrations") / "versions").iterdir()
    return max(file.name[:4] for file in files if file.name.endswith(".py"))


def _revision_of(connection: Connection) -> str | None:
    there = text("SELECT to_regclass('alembic_version') IS NOT NULL")
    if not connection.execute(there).scalar_one():
        return None
    return connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar_one_or_none()


def _finding(table: str, detail: str) -> Finding:
    return Finding(Verdict.SCHEMA_CHANGED, table, detail)


def _columns_of(connection: Connection, oid: int | None) -> dict[str, Row[Any]]:
    return {found.name: found for found in connection.execute(_COLUMNS, {"oid": oid})}


def _check_columns(table: Table, there: Mapping[str, Row[Any]]) -> Iterator[Finding]:
    if not there:
        yield _finding(table.name, "the table is not there")
        return
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    for column in table.columns:
        found = there.get(column.name)
        if found is None:
            yield _finding(table.name, f"the column {column.name} is missing")
            continue
        type_name = column.type.compile(dialect).lower()
        if found.type != type_name:
            yield _finding(table.name, f"the column {column.name} is {found.type} and not {type_name}")
        if found.required == column.nullable:
            what = "must not be NULL" if found.required else "may be NULL"
            yield _finding(table.name, f"the column {column.name} {what}")
        if found.generated or not found.plain:
            yield _finding(table.name, f"the column {column.name} is computed, or compares in its own way")


def _strange_columns(table: Table, there: Iterable[str]) -> Iterator[Finding]:
    for name in sorted(set(there) - set(table.columns.keys())):
        yield _finding(table.name, f"the column {name} is not one of the log's")


def _check_relation(relation: Row[Any]) -> Iterator[Finding]:
    if relation.oid is None:
        return
    name: str = relation.name
    kind = "p" if relation.parent in _PARTITIONED and not relation.is_partition else "r"
    if relation.kind != kind:
        yield _finding(name, "it is no table any more but something that stands in for one")
    if not relation.logged:
        yield _finding(name, "it is unlogged: a crash of the server empties it")
    if relation.row_security:
        yield _finding(name, "row level security is on: not everybody sees every row")
    if relation.rules:
        yield _finding(name, "it has rules, which put other statements in the place of those that are sent")
    if not relation.keyed:
        yield _finding(name, "its primary key is gone or not enforced")
    for index in relation.broken_indexes:
        yield _finding(name, f"the index {index} is switched off: searches by it may miss rows")
    for double in relation.doubles:
        yield _finding(name, f"{double} has the same name: who reads by another search_path sees that")
    if relation.is_partition and relation.bound != _bound_of(relation.parent, name):
        yield _finding(name, f"it is attached to {relation.parent} and no month of it")


def _check_constraints(relation: Row[Any]) -> Iterator[Finding]:
    # What PostgreSQL refuses to hold, the audit worker sets aside: the log would go without it.
    table = Base.metadata.tables[relation.parent]
    made = {str(item.name) for item in table.constraints} | {str(item.name) for item in table.indexes}
    for strange in sorted({*relation.unique_indexes, *relation.constraints} - made):
        yield _finding(relation.name, f"{strange} is not one of the log's: it may refuse rows")


def _bound_of(parent: str, name: str) -> str | None:
    """Return how PostgreSQL spells the bounds of the month whose partition is called so."""
    digits = name.removeprefix(f"{parent}_p")
    try:
        first_day, next_month = bounds_of(date(int(digits[:4]), int(digits[4:]), 1))
    except ValueError:
        return None
    return f"FOR VALUES FROM ('{first_day:%Y-%m-%d %H:%M:%S}+00') TO ('{next_month:%Y-%m-%d %H:%M:%S}+00')"


def _check_triggers(connection: Connection, relations: Sequence[Row[Any]]) -> Iterator[Finding]:
    there: dict[int, dict[str, Row[Any]]] = defaultdict(dict)
    oids = [relation.oid for relation in relations if relation.oid is not None]
    for found in connection.execute(_TRIGGERS_THERE, {"oids": oids}):
        there[found.oid][found.name] = found
    # What is switched off for a table is so for each of its months: told once.
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for relation in relations:
        if relation.oid is not None:
            for what in _wrong_triggers(_TRIGGERS[relation.parent], there[relation.oid]):
                wrong[relation.parent, what].append(relation.name)
    for (_, what), names in wrong.items():
        more = f", as on {len(names) - 1} more of its months" if len(names) > 1 else ""
        yield _finding(names[0], what + more)


def _wrong_triggers(expected: Mapping[str, str], there: Mapping[str, Row[Any]]) -> Iterator[str]:
    for name, function in expected.items():
        trigger = there.get(name)
        if trigger is None or trigger.function != function:
            yield f"the trigger {name} is gone"
        elif not trigger.always:
            yield f"the trigger {name} is switched off"
    for name in sorted(there.keys() - expected.keys()):
        yield f"the trigger {name} is not one of the log's"


def _check_functions(connection: Connection) -> Iterator[Finding]:
    bodies = {found.name: found.body for found in connection.execute(_BODIES, {"names": list(FUNCTIONS)})}
    for name, digest in FUNCTIONS.items():
        if name not in bodies:
            yield _finding(name, "the function is gone")
        elif hashlib.sha256(bodies[name].encode()).hexdigest() != digest:
            yield _finding(name, "the function is not the one that the migrations made")
