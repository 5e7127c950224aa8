"""Ways to give the kernel a lazy root."""
