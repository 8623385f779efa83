"""Files of weights: reading, writing, recognising, fetching, and what they leave open."""
