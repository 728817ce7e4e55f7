"""What this package costs next to its peers. Ratios of one run; absolute times are the machine's."""
