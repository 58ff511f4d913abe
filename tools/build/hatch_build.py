"""Hatchling hook: put the compiled core and the native device into wheels and editable installs."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

import compile_core


class DripBuildHook(BuildHookInterface[Any]):
    """Compiles the C core before the wheel is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and tell hatchling what to pack.

        Args:
            version: "editable" for an editable install, else "standard".
            build_data: Hatchling's mutable description of the wheel.
        """
        os.chdir(self.root)
        if version == "editable":
            destination = compile_core.PACKAGE
        else:
            # Owned by the hook object, so that the files live until the wheel is packed.
            self._scratch = tempfile.TemporaryDirectory()
            destination = Path(self._scratch.name)
        for built in (
            compile_core.build_extension(destination),
            compile_core.build_native(destination),
        ):
            if built is not None and version != "editable":
                inside = built.relative_to(destination).as_posix()
                build_data["force_include"][str(built)] = f"drip/{inside}"
        build_data["pure_python"] = False
        if compile_core.LIMITED_API:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp310-abi3-{platform}"
        else:
            build_data["infer_tag"] = True
