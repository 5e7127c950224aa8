from collections.abc import Iterator

class Chunk:
    offset: int
    length: int

def fastcdc_cy(
    data: bytes | memoryview, min_size: int, avg_size: int, max_size: int
) -> Iterator[Chunk]: ...
