"""python3 attempts TARGETS TABLE [CONTROL...]: makes every attempt and writes the table of what came of it.

With CONTROL (`host`, `root`, `namespaces`) only those that must succeed there.
"""

import json
import os
import shutil
import sys

# Before anything is opened: what the step was given beside its standard streams.
INHERITED = [fd for fd in range(3, 1024) if os.path.lexists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)]

import network  # noqa: E402,F401
import privileges  # noqa: E402,F401
import processes  # noqa: E402,F401
import reads  # noqa: E402,F401
import table  # noqa: E402
import writes  # noqa: E402,F401


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        targets = json.load(file)
    targets["inherited"] = INHERITED
    controls = sys.argv[3:]
    os.makedirs(targets["work"], exist_ok=True)
    only = (lambda run: run.control in controls) if controls else (lambda run: True)
    result = table.run_all(targets, only)
    # What an attempt left among the outputs is no result.
    shutil.rmtree(targets["work"], ignore_errors=True)
    os.makedirs(targets["work"], exist_ok=True)
    with open(os.path.join(targets["work"], "done"), "w", encoding="ascii") as file:
        file.write(f"{len(result)} attempts\n")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, sort_keys=True)


main()
