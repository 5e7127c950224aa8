"""Measure bootfs against what a user would run instead, as ratios taken in one run."""
