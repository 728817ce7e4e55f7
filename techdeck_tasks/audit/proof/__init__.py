"""What makes a change of the log show: chains, checkpoints, the backup sink, verification."""
