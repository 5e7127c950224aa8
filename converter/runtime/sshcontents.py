"""What goes into the second shared layer: the program ``ssh``, and libraries of its own.

Tables only.  The loader and the libraries that the runtime layer has are used from there.
"""

from __future__ import annotations

from converter.runtime.contents import LIBRARIES

SSH = "ssh"
"""Where the layer lies below ``/.bootfs``; store/read/sshprogram.py looks there."""

LOCK = "ssh.lock"
"""The layer's own lock file, of the same form as the runtime layer's."""

DEBIAN_PACKAGES = (
    "libc6",  # holds libresolv
    "libcom-err2",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libnss-wrapper",
    "libpcre2-8-0",
    "libselinux1",
    "openssh-client",
)

# Path below SSH -> package, path in it, as for the runtime layer.
BINARIES = {
    "lib/libcom_err.so.2": ("libcom-err2", f"{LIBRARIES}/libcom_err.so.2"),
    "lib/libgssapi_krb5.so.2": ("libgssapi-krb5-2", f"usr/{LIBRARIES}/libgssapi_krb5.so.2"),
    "lib/libk5crypto.so.3": ("libk5crypto3", f"usr/{LIBRARIES}/libk5crypto.so.3"),
    "lib/libkeyutils.so.1": ("libkeyutils1", f"{LIBRARIES}/libkeyutils.so.1"),
    "lib/libkrb5.so.3": ("libkrb5-3", f"usr/{LIBRARIES}/libkrb5.so.3"),
    "lib/libkrb5support.so.0": ("libkrb5support0", f"usr/{LIBRARIES}/libkrb5support.so.0"),
    # ssh wants an account for its user, and not every image has one for root.
    "lib/libnss_wrapper.so": ("libnss-wrapper", f"usr/{LIBRARIES}/libnss_wrapper.so"),
    "lib/libpcre2-8.so.0": ("libpcre2-8-0", f"usr/{LIBRARIES}/libpcre2-8.so.0"),
    "lib/libresolv.so.2": ("libc6", f"{LIBRARIES}/libresolv.so.2"),
    "lib/libselinux.so.1": ("libselinux1", f"{LIBRARIES}/libselinux.so.1"),
    "ssh": ("openssh-client", "usr/bin/ssh"),
}

PROGRAMS = ("askpass", "ssh")

KEYS = "keys"
"""An empty directory below `SSH`, for copies of keys."""

# Path below SSH -> contents.
TEXTS = {
    # The kernel starts it by the runtime layer's loader and interpreter: there is no shell.
    "askpass": b"""\
#!/.bootfs/runtime/ld.so /.bootfs/runtime/python
import posix
with open(posix.environ[b"BOOTFS_ASKPASS_FILE"], "rb") as file:
    posix.write(1, file.readline())
""",
    "group": b"root:x:0:\n",
    "passwd": b"root:x:0:0::/.bootfs/ssh:/nologin\n",
}

NULL = "dev/null"
"""Below ``/.bootfs``, which is ssh's root in mode ``lease``: it opens this and never uses it."""
