"""Files on their way in: checked, resumable."""
