"""The loopback device: a second kind of device for machines that have none, in the host's own memory.

`import specs.loopback` makes it known to PyTorch as "loopback", with two indices; `--device loopback` does so, too. To
autograd it is a device like any other: the engine runs its nodes in threads of the device's own, tensors are copied to
and from it, and it doesn't mix with the CPU. What it computes, the CPU computes, before a call returns.

The device is written in C++ (device.cpp) and compiled on first use, for each release of PyTorch. That takes a C++
compiler and the packages ninja and setuptools; without them, and before torch 2.1, the import is an ImportError that
says so in one sentence.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
import types
from pathlib import Path

import torch

NAME = "loopback"
SOURCE = Path(__file__).with_name("device.cpp")
COUNT = 2  # as in device.cpp
_OLDEST = (2, 1)  # 2.0 can't save, load or copy storages of an out-of-tree device


def library() -> Path:
    """Where the compiled device lies, or will lie, for this source, PyTorch, Python and machine."""
    caches = os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    source = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    built_for = f"torch-{torch.__version__}-{sys.implementation.cache_tag}-{platform.machine()}-{source}"
    return Path(caches) / "autograd-conformance" / built_for / "loopback.so"


def _why_not() -> str | None:
    """Why the device can't be had here, or None if nothing is known to stand against it."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
        return f"it takes torch 2.1 or newer, and this is {torch.__version__}"
    if (taken := torch._C._get_privateuse1_backend_name()) != "privateuseone":
        return f"PyTorch has room for one out-of-tree device, and {taken} has taken it"
    if library().exists():
        return None
    for package in ("setuptools", "ninja"):
        if importlib.util.find_spec(package) is None and not (package == "ninja" and shutil.which("ninja")):
            return f"building it takes the package {package} (pip install {package})"
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"building it takes a C++ compiler, and there is no {compiler!r}"
    return None


def _build() -> None:
    """Compile the device and load it; the next process finds it. Two that do so at once don't disturb each other."""
    path = library()
    print(
        f"building the loopback device for torch {torch.__version__}, once; this may take a minute ...", file=sys.stderr
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent))
    except OSError as error:
        raise ImportError(str(error)) from None
    environment = os.environ.copy()
    # A package that brings ninja puts it beside Python, which isn't on everyone's path.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    try:
        from torch.utils.cpp_extension import load

        load(NAME, [str(SOURCE)], extra_cflags=["-O1"], build_directory=str(folder), is_python_module=False)
        (folder / f"{NAME}.so").replace(path)
    except Exception as error:
        log = path.with_name("failed.txt")
        log.write_text(str(error), "utf-8")
        raise ImportError(f"it could not be built, as {log} tells") from None
    finally:
        os.environ["PATH"] = environment.get("PATH", os.defpath)
        shutil.rmtree(folder, ignore_errors=True)


def _index(device: int | str | torch.device | None) -> int:
    index = device if isinstance(device, int) else torch.device(device or NAME).index
    return torch.ops.loopback.current_device() if index in (None, -1) else index


class _Current:
    """A block in which a device is the current one, as of torch.cuda.device."""

    def __init__(self, device: int | str | torch.device):
        self.index = _index(device)

    def __enter__(self) -> None:
        self.before = torch.ops.loopback.current_device()
        torch.ops.loopback.set_device(self.index)

    def __exit__(self, *error: object) -> None:
        torch.ops.loopback.set_device(self.before)


def _module() -> types.ModuleType:
    """What PyTorch's Python part asks of a device: the module `torch.loopback`."""
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.is_initialized = lambda: True
    module.device_count = lambda: COUNT
    module.current_device = lambda: torch.ops.loopback.current_device()
    module.set_device = lambda device: torch.ops.loopback.set_device(_index(device))
    module.synchronize = lambda device=None: None  # work is done when a call returns
    module.manual_seed = lambda seed: None  # random numbers are the CPU's
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.device = _Current
    module._is_in_bad_fork = lambda: False
    return module


def _register() -> None:
    if reason := _why_not():
        raise ImportError(reason)
    if library().exists():
        torch.ops.load_library(str(library()))
    else:
        _build()
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module())
    # A thread of the engine that still tidies up a backward when Python ends takes the process down: it asks for the
    # interpreter's lock, which it doesn't get any more. So let it have it before.
    atexit.register(time.sleep, 0.1)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)  # for loading what was saved


_register()
