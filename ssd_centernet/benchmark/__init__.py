"""How fast the parts are, and how much memory they take, as JSON lines."""
