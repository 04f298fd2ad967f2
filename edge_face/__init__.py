"""edge-face: a face-recognition daemon for gates and doors on single-board computers."""

__version__ = "0.1.0"
