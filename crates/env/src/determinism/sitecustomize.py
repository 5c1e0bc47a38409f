"""Seeds the global generators of Python, numpy, torch and TensorFlow with TRAINLOCK_SEED.

Python runs this at its start. `random` is seeded now, the others when they are first imported.
"""

import os
import random
import sys


def _seed():
    return int(os.environ.get("TRAINLOCK_SEED", "0"))


def _numpy(module):
    module.random.seed(_seed() % 2**32)


def _torch(module):
    module.manual_seed(_seed() % 2**63)


def _tensorflow(module):
    module.random.set_seed(_seed() % 2**63)


_SEEDERS = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow}


class _Seeding:
    """Finds no module itself: lets the others find it, and seeds it once it is loaded."""

    asked = set()

    def find_spec(self, name, path=None, target=None):
        # Whoever only asks whether a module is there must not use it up.
        if name not in _SEEDERS or name in self.asked:
            return None
        from importlib.util import find_spec

        self.asked.add(name)
        try:
            spec = find_spec(name)
        finally:
            self.asked.discard(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            seeder = _SEEDERS.pop(name, None)
            if seeder is not None:
                seeder(module)

        spec.loader.exec_module = exec_module
        return spec


_forks = 0
_lineage = []


def _before_fork():
    global _forks
    _forks += 1


def _in_child():
    """`random` has just been seeded by the system, and numpy has what its parent has: each child gets a seed of its own,
    from the project's and from which fork of which parent it is."""
    global _forks
    from hashlib import sha256

    _lineage.append(_forks)
    _forks = 0
    text = "/".join(str(number) for number in [_seed(), *_lineage])
    seed = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed % 2**63)


random.seed(_seed())
# Behind the hook of `random` itself, which comes first.
os.register_at_fork(before=_before_fork, after_in_child=_in_child)
sys.meta_path.insert(0, _Seeding())


def _next_sitecustomize():
    """Another sitecustomize behind this one still runs."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        spec.loader.exec_module(module_from_spec(spec))


_next_sitecustomize()
