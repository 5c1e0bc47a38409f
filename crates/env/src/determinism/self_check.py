"""Prints, as one line of JSON, what numeric libraries really do in this environment."""

import ctypes
import glob
import json
import os
from importlib.util import find_spec

found = {"openblas": [], "numpy": None, "torch": None, "failed": {}}


def failed(name, error):
    """A library that is not there is no failure; one that is there and can't be imported is."""
    try:
        there = find_spec(name) is not None
    except Exception:
        there = True
    if there:
        found["failed"][name] = "%s: %s" % (type(error).__name__, str(error).strip()[:300])


def first(library, names):
    for name in names:
        try:
            return getattr(library, name)
        except AttributeError:
            continue
    return None


def openblas(path):
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return
    variants = [prefix + "%s" + suffix for prefix in ("scipy_", "") for suffix in ("64_", "", "_64", "64")]
    core = first(library, [v % "openblas_get_corename" for v in variants])
    threads = first(library, [v % "openblas_get_num_threads" for v in variants])
    if core is None or threads is None:
        return
    core.restype = ctypes.c_char_p
    found["openblas"].append({"file": os.path.basename(path), "core": core().decode(), "threads": threads()})


try:
    import numpy

    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatch, __cpu_features__ as features
    except ImportError:
        from numpy.core._multiarray_umath import __cpu_dispatch__ as dispatch, __cpu_features__ as features
    # A feature that numpy does not dispatch by changes nothing, whatever the CPU has.
    found["numpy"] = {"version": numpy.__version__, "features": sorted(k for k in dispatch if features.get(k))}
    folder = os.path.dirname(os.path.dirname(os.path.abspath(numpy.__file__)))
    for package in ("numpy", "scipy"):
        for path in sorted(glob.glob(os.path.join(folder, package + ".libs", "*openblas*"))):
            openblas(path)
except Exception as error:
    failed("numpy", error)

# Importing torch takes seconds, and nothing less tells what it chose; a step that has it will import it too.
try:
    import torch
except Exception as error:
    torch = None
    failed("torch", error)
if torch is not None:
    # Before 2.0 it does not say what it chose.
    cpu = getattr(getattr(torch, "backends", None), "cpu", None)
    capability = getattr(cpu, "get_cpu_capability", lambda: None)()
    found["torch"] = {"threads": torch.get_num_threads(), "capability": capability}

print(json.dumps(found))
