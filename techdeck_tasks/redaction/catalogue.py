"""All rules, in one table."""

from __future__ import annotations

from techdeck_tasks.redaction.credentials import CREDENTIAL_RULES
from techdeck_tasks.redaction.identifiers import IDENTIFIER_RULES
from techdeck_tasks.redaction.labels import LABELLED
from techdeck_tasks.redaction.particulars import PARTICULAR_RULES
from techdeck_tasks.redaction.rule import Rule
from techdeck_tasks.redaction.structures import STRUCTURE_RULES
from techdeck_tasks.redaction.tokens import TOKEN_RULES

RULES: tuple[Rule, ...] = (
    LABELLED,
    *TOKEN_RULES,
    *CREDENTIAL_RULES,
    *STRUCTURE_RULES,
    *IDENTIFIER_RULES,
    *PARTICULAR_RULES,
)
