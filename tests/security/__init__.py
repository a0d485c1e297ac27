"""Files of strangers: each is made here, hostile, and read by what reads it."""
