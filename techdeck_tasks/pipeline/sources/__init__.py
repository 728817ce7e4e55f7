"""How a source is read: its encoding, its dialect, its types; whole, or in pieces by several tasks."""
