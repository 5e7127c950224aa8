"""Lease mode: the tree made in the container's own root, each file filled when it is opened."""
