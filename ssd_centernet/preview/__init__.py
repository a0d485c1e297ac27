"""Show what a training is fed, and what its targets match, before it runs."""
