"""Data on its way through a pipeline: where it lies, its types, and what stages hand on, sealed."""
