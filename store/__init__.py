"""Where converted images keep their bytes: formats, reading, writing."""
