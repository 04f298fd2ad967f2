"""The ways out of the box: one file each."""
