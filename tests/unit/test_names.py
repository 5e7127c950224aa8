from store.format.names import (
    STORE_MARK,
    bootstrap_name,
    chunk_index_name,
    manifest_name,
    pack_name,
)

DIGEST = bytes([0xAB, 0xCD]) + bytes(29) + b"\xef"
HEX = "abcd" + "00" * 29 + "ef"


def test_names_are_those_of_the_format() -> None:
    assert pack_name(DIGEST) == f"packs/ab/{HEX}"
    assert chunk_index_name(DIGEST) == f"indexes/{HEX}"
    assert bootstrap_name(DIGEST) == f"bootstraps/{HEX}"
    assert manifest_name(DIGEST) == f"manifests/{HEX}"
    assert STORE_MARK == "bootfs-store"
