"""Packages of the wheel. All other metadata is in pyproject.toml, which can't both find packages and add one."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["agegender*", "hydra_plugins*"]), "agegender.conf"],
    package_dir={"agegender.conf": "conf"},
)
