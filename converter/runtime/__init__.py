"""The runtime layer: layer 1 of every boot image, the same bytes for all of them.

It carries an interpreter with its libraries, the part of the standard library and
the packages that boot needs, and our own boot path, all compiled.  What it is made
from is pinned by digest in ``runtime.lock``, so the layer does not depend on the
machine that made it.  A second layer of the same kind has what reads a store over
SSH, for the images that need it.
"""

from converter.runtime.layer import RuntimeLayer, open_runtime
from converter.runtime.sshlayer import open_ssh

__all__ = ["RuntimeLayer", "open_runtime", "open_ssh"]
