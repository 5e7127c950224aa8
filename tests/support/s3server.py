"""A real S3 server: rclone's, which keeps objects as files and verifies every signature."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.require import RCLONE
from tests.support.servers import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_ID = "AKIDTESTTESTTESTTEST"
SECRET = "secret/of+the/tests/only"
CREDENTIALS = f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
BUCKET = "images"


class S3Server(Server):
    """rclone serving the directories below `root` as buckets, on loopback and further addresses."""

    def __init__(
        self,
        root: Path,
        *,
        addresses: Sequence[str] = (),
        is_read_only: bool = False,
        tls: Path | None = None,
    ) -> None:
        """Serve `root`, where a directory `BUCKET` is made.

        With `tls`, a directory of `server.crt` and `server.key`, by https.
        """
        run = Path(tempfile.mkdtemp(prefix="bootfs-s3-"))
        self.root = root
        self.bucket = root / BUCKET
        self.bucket.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [str(RCLONE), "serve", "s3", str(root), "--config", str(run / "none")]
        command += ["--auth-key", f"{KEY_ID},{SECRET}", "--cache-dir", str(run / "cache")]
        # What a test changes in the directory is seen at once; at 0 it hangs now and then.
        command += ["--dir-cache-time", "1ms", "--no-checksum"]
        command += ["--read-only"] * is_read_only
        if tls is not None:
            command += ["--cert", str(tls / "server.crt"), "--key", str(tls / "server.key")]
        self._scheme = "http" if tls is None else "https"
        for address in ("127.0.0.1", *addresses):
            command += ["--addr", f"{address}:{port}"]
        super().__init__("rclone", command, port, run)

    def store_url(self, prefix: str = "", address: str = "127.0.0.1") -> str:
        """Give the URL of a store in the bucket."""
        path = f"{BUCKET}/{prefix}" if prefix else BUCKET
        return f"s3://{path}?endpoint={self._scheme}://{address}:{self.port}"


def write_credentials(directory: Path, text: str = CREDENTIALS) -> Path:
    """Write the file that containers are given, into `directory`; return the directory."""
    directory.mkdir(exist_ok=True)
    (directory / "s3").write_text(text)
    return directory
