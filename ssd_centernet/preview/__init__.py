"""Show the inputs and the matches of a training before it runs."""
