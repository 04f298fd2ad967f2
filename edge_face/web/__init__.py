"""The HTTP door: it sees only the few methods of the rest that `services.py` declares."""
