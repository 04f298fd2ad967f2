"""What each command of `edge-face` does; `cli.py` holds their arguments."""
