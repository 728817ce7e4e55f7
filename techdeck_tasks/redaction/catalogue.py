"""All rules, in one table. To add one, add a row to the module that fits; its examples are tested at once."""

from __future__ import annotations

from techdeck_tasks.redaction.abroad import ABROAD_RULES
from techdeck_tasks.redaction.commands import COMMAND_RULES
from techdeck_tasks.redaction.documents import DOCUMENT_RULES
from techdeck_tasks.redaction.echoes import ECHO_RULES
from techdeck_tasks.redaction.headers import HEADER_RULES
from techdeck_tasks.redaction.identifiers import IDENTIFIER_RULES
from techdeck_tasks.redaction.keyfiles import KEYFILE_RULES
from techdeck_tasks.redaction.labels import LABELLED
from techdeck_tasks.redaction.networks import NETWORK_RULES
from techdeck_tasks.redaction.particulars import PARTICULAR_RULES
from techdeck_tasks.redaction.rule import Rule
from techdeck_tasks.redaction.structures import STRUCTURE_RULES
from techdeck_tasks.redaction.tokens import TOKEN_RULES
from techdeck_tasks.redaction.urls import URL_RULES

RULES: tuple[Rule, ...] = (
    LABELLED,
    *TOKEN_RULES,
    *HEADER_RULES,
    *URL_RULES,
    *COMMAND_RULES,
    *KEYFILE_RULES,
    *STRUCTURE_RULES,
    *ECHO_RULES,
    *IDENTIFIER_RULES,
    *NETWORK_RULES,
    *DOCUMENT_RULES,
    *PARTICULAR_RULES,
    *ABROAD_RULES,
)
