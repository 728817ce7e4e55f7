"""``python -m techdeck_tasks``."""

from techdeck_tasks.cli import main

main()
