"""Data on its way through a pipeline: where it is, how it is read, what is handed on."""
