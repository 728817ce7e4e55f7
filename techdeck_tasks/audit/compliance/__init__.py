"""The compliance report: figures from the log's clear columns, kept, rendered and signed off."""
