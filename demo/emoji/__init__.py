"""A second demo model: colour emoji, a transformer trained by flow matching from s = 1."""
