"""Ranges, cache and fetching; lean enough for the boot path."""
