"""The life of a run: its states, their store, claims, parts, and what operators do."""
