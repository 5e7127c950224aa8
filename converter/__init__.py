"""Turn an ordinary image into a boot image and packs."""

RELEASE = "0.1.0"
"""As in pyproject.toml; written into boot images."""
