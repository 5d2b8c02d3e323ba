"""The packages of the wheel. All else stands in pyproject.toml, which can't both find packages and name one more."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["agegender*", "hydra_plugins*"]), "agegender.conf"],
    package_dir={"agegender.conf": "conf"},
)
