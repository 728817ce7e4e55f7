"""Who reads the log, and how: search, entries, export."""
