"""`edge-face bench`: how fast this board is, and what it can serve."""
