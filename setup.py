"""Packaging: everything is in pyproject.toml, but that the chapters' methods are written into the package."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class WithMethods(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:  # a checkout reads its notebooks
            sys.path.insert(0, str(HERE / "src"))
            from nearfar import methods

            methods.write(Path(self.build_lib) / "nearfar" / "methods")


setup(cmdclass={"build_py": WithMethods})
