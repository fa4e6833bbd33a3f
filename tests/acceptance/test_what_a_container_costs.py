"""Chapter 00 compares a container with a virtual machine: the comparison, with a kernel that really boots."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parents[2] / "chapters" / "00-what-is-a-container"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    spec = importlib.util.spec_from_file_location("chapter_00_measure", HERE / "measure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.caged
@pytest.mark.limit(180)
def test_a_container_starts_faster_and_takes_less_memory_than_a_virtual_machine(measure: ModuleType) -> None:
    kernel, busybox = measure.find_kernel(), shutil.which("busybox")
    if not (kernel and busybox and shutil.which(f"qemu-system-{platform.machine()}")):
        pytest.skip("no virtual machine: needs QEMU, busybox-static and tests/vm/kernel (`make test-deps`)")
    seconds, memory = measure.virtual_machine(kernel, busybox)
    assert measure.container() < seconds / 10
    assert measure.container_memory() < memory / 10


def test_the_page_holds_a_measurement_with_every_row(measure: ModuleType) -> None:
    page = (HERE / "README.md").read_text()
    rows = page.split(measure.BEGIN)[1].split(measure.END)[0]
    for what in ("a process", "a container", "a virtual machine", "a busybox", "a Debian userland", "whole system"):
        assert what in rows, f"`measure.py --write` on a machine that can measure {what}"
