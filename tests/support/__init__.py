"""Real parts and small doubles that the tests share."""
