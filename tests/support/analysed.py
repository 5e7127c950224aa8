"""Small trees, and what the analysis says that their start reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from converter.analysis import analyse
from converter.erofswriter import write_bootstrap
from converter.tree import Node
from store.format.erofs import Image
from tests.support.trees import DataRegion, iter_tree, make_directory, make_file, make_link

BLOCK = 4096


def make_tree(files: Mapping[str, bytes | str]) -> Node:
    """Return a tree of files by path; a text is the target of a link, bytes are a program's."""
    root = make_directory()
    for path, content in files.items():
        at = root
        *directories, name = path.strip("/").encode().split(b"/")
        for part in directories:
            at = at.children.setdefault(part, make_directory())
        if isinstance(content, str):
            at.children[name] = make_link(content.encode())
        else:
            at.children[name] = make_file(content, mode=0o755)
    return root


class Analysed:
    """A tree, and the reads of a start of it; ``pages`` by the path of each file."""

    def __init__(
        self,
        root: Node,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> None:
        region = DataRegion(root)
        bootstrap = write_bootstrap(root, region.extents, region.size)
        start = bootstrap.data_start
        nodes = {at: node for node, at in region.extents.items()}
        starts = sorted(nodes)

        def contents(offset: int, size: int) -> bytes:
            at = starts[bisect_right(starts, offset - start) - 1]
            data = nodes[at].content.pread(offset - start - at, size)
            assert len(data) == size
            return data

        self.reads = analyse(
            Image(bootstrap.plain),
            contents,
            [word.encode() for word in command],
            {key.encode(): value.encode() for key, value in (environment or {}).items()},
            cwd.encode(),
        )
        paths = {
            region.extents[node]: path for path, node in iter_tree(root) if node in region.extents
        }
        self.metadata: list[int] = []
        self.pages: dict[str, list[int]] = {}
        for first, count in self.reads:
            for page in range(first, first + count):
                if page * BLOCK < start:
                    self.metadata.append(page)
                    continue
                at = starts[bisect_right(starts, page * BLOCK - start) - 1]
                path = paths[at].decode()
                self.pages.setdefault(path, []).append((page * BLOCK - start - at) // BLOCK)

    @property
    def files(self) -> list[str]:
        """The files that are read, in order."""
        return list(self.pages)
