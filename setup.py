"""The one rule of packaging that pyproject.toml cannot express: which root modules are not part of the package.

The repository root is the package `fewstep`, so setuptools would take every `.py` file that lies there.
"""

from setuptools import setup
from setuptools.command.build_py import build_py

NOT_PACKAGED = {"install", "setup"}


class BuildPy(build_py):
    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if package != "fewstep" or module[1] not in NOT_PACKAGED]


setup(cmdclass={"build_py": BuildPy})
