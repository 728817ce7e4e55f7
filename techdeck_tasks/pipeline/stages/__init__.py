"""The kinds of stages that come with the package, one file each."""
