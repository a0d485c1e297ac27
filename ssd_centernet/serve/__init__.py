"""Detection over HTTP: pictures in, JSON or drawings out."""
