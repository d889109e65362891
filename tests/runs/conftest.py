"""Fixtures of tests that run chapters."""

from toybook import forking, variables  # noqa: F401 - fixtures
