"""Both forms of the input pipeline, compared on random pictures and boxes."""
