"""The audit log: sealed at the source, ordered, tamper-evident, read only with the reader's key."""
