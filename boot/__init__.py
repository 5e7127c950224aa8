"""The init of a boot image; runs in the container."""
