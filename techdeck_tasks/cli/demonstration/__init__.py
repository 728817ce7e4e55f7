"""What ``techdeck demo`` shows: real patients' data, a source that is down at first, and two pipelines."""
