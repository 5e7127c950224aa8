"""Packs out, backends, commit."""
