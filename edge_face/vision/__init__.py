"""The vision stages: one file each, pure, with their models passed in."""
