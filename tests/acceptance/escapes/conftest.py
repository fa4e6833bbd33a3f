"""The command line on a store of its own, as the tests of the tool have it."""

from tests.run.conftest import pytest_collection_finish, tool  # noqa: F401
