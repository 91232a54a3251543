"""What has to wait for a package: it is done as soon as somebody has imported it, and never by importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Arrival(MetaPathFinder):
    """Calls `then` once, when the package has been imported; now, if it has been already.

    Looking for a package, as `importlib.util.find_spec` does, is not importing it. Until then it stands first among
    the finders of modules, and finds what the others find.
    """

    def __init__(self, package: str, then: Callable[[], None]) -> None:
        self._package = package
        self._then = then
        self._waiting = True
        sys.meta_path.insert(0, self)
        if package in sys.modules:
            self._come()

    def __repr__(self) -> str:
        return f"<Arrival {self._package}{' awaited' if self._waiting else ''}>"

    def cancel(self) -> None:
        """Waits no longer. Harmless afterwards."""
        self._waiting = False
        with suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find; of our package with a word to us behind it."""
        if fullname != self._package:
            return None
        others = (each.find_spec(fullname, path, target) for each in list(sys.meta_path) if each is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            self._listen(spec.loader)
        return spec

    def _listen(self, loader: Loader) -> None:
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            run(module)
            self._come()

        with suppress(TypeError):  # a loader that is not to be changed: then nobody tells us
            vars(loader)["exec_module"] = exec_module

    def _come(self) -> None:
        if self._waiting:
            self.cancel()
            self._then()
