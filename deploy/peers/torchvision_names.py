"""Lets torchvision's wheel for CUDA be imported beside torch's build for a processor, in the environment of the peers.

Its operators cannot be loaded there, and nothing that is measured calls them; but torchvision describes two of them to
torch when it is imported, and fails where torch does not know their names. An index without torchvision's own build for
processors leaves no other one to install. A build for processors (`+cpu`) and torch's build for CUDA are left alone.
"""

import sys
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

KEPT: list[MetaPathFinder] = []


class NamesFirst(MetaPathFinder):
    """Tells torch the names of the operators just before torchvision is imported."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns None always: torchvision is found where it lies."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None and "+" not in metadata.version("torchvision"):
                library: Any = torch.library
                self.names = library.Library("torchvision", "DEF")  # the names end with it
                for name in ("nms", "qnms"):
                    self.names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                KEPT.append(self)
        return None


sys.meta_path.insert(0, NamesFirst())
