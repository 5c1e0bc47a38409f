"""How attempts are written down, run one by one, and judged.

An attempt is a function of the targets. That it raises OSError means that it was stopped, and by what; that it
returns means that it got out, and the text says what it got. Everything else is said by the exceptions below.

Each runs in a process of its own with a time limit. All are harmless where they succeed: they open without
writing, set what is set already, or ask in a form that the kernel refuses only after it looked at the rights.
"""

import errno
import json
import os
import select
import signal
import stat
import time
import traceback

LIMIT = 20.0

ATTEMPTS = {}


class Stopped(Exception):
    """The attempt was stopped by something other than an errno."""


class NotHere(Exception):
    """This machine has nothing to make the attempt on."""


class Outer(Exception):
    """Only whoever started the step can tell: the text names what is to be looked for."""


class Broken(Exception):
    """What the attempt needs could not be laid out: nothing is known then."""


class Attempt:
    """One attempt: what it does, the guarantee that must stop it, and where it can be shown to work."""

    def __init__(self, function, guarantee, control, signals):
        self.function = function
        self.guarantee = guarantee
        self.control = control
        self.signals = signals


def attempt(name, guarantee, control=None, signals=("SIGSYS",)):
    """Notes an attempt.

    `guarantee`: reads, writes, tcp, udp, environment, processes; or `kernel` for what no tier may let through.
    `control`: where it must succeed, so that it is known to be an attempt at all: `host` for any user, `root` for
    root alone, `namespaces` for root of namespaces of its own; none where success would do harm.
    `signals`: the signals that end its process where it is stopped by them.
    """

    def note(function):
        assert name not in ATTEMPTS, name
        ATTEMPTS[name] = Attempt(function, guarantee, control, signals)
        return function

    return note


class Prepared:
    """`with Prepared():` round what comes before the attempt itself; an OSError there says nothing about it."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, OSError):
            raise Broken(f"{error}") from error


def words(error):
    """An OSError in one word."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "no answer"
    return errno.errorcode.get(error.errno, str(error))


def judge(run, targets):
    """Makes an attempt in this process: its outcome and how."""
    try:
        return "escaped", str(run.function(targets))
    except Stopped as why:
        return "stopped", str(why)
    except NotHere as why:
        return "n/a", str(why)
    except Outer as what:
        return "outer", str(what)
    except OSError as error:
        return "stopped", words(error)
    except BaseException:  # noqa: BLE001
        return "broken", traceback.format_exc()


def in_child(run, targets):
    """Makes an attempt in a child: its outcome and how."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # What an attempt prints is the step's log, never the table.
        outcome = judge(run, targets)
        os.write(writer, (json.dumps(outcome) + "\n").encode())
        os._exit(0)
    os.close(writer)
    text = b""
    end = time.monotonic() + LIMIT
    while not text.endswith(b"\n"):
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return "hung", f"no end after {LIMIT:.0f} seconds"
        piece = os.read(reader, 65536)
        if not piece:
            break
        text += piece
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if text.endswith(b"\n"):
        return tuple(json.loads(text))
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return ("stopped" if name in run.signals else "broken"), f"ended by {name}"
    return "broken", f"ended with {os.WEXITSTATUS(status)} and said nothing"


class Guard:
    """Notes how the inputs are, so that a change is seen whatever an attempt believes of itself."""

    def __init__(self, paths):
        self.paths = [os.path.abspath(path) for path in paths]
        self.before = {path: self.look(path) for path in self.paths}

    @staticmethod
    def look(path):
        """All that can be said about a file; none if it is not there."""
        try:
            facts = os.lstat(path)
            with open(path, "rb") as file:
                content = file.read()
            kind = (stat.S_IFMT(facts.st_mode), stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)
            attributes = sorted(os.listxattr(path))
            return content, kind, facts.st_mtime_ns, attributes
        except OSError:
            return None

    def changed(self):
        """The inputs that are not what they were since this was asked last, put right again as far as may be."""
        changed = [path for path in self.paths if self.look(path) != self.before[path]]
        for path in changed:
            if self.before[path] is None:
                continue
            content, kind, modified, _ = self.before[path]
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if os.path.lexists(path):
                    os.unlink(path)
                with open(path, "wb") as file:
                    file.write(content)
                os.chmod(path, kind[1])
                os.utime(path, ns=(modified, modified))
            except OSError:
                pass
        # What can't be put right is the doing of one attempt, not of all that follow.
        self.before = {path: self.look(path) for path in self.paths}
        return [os.path.basename(path) for path in changed]


def run_all(targets, only):
    """The table of all attempts that `only` wants, by name."""
    guard = Guard(targets["inputs"].values())
    table = {}
    for name, run in ATTEMPTS.items():
        if not only(run):
            continue
        outcome, how = in_child(run, targets)
        changed = guard.changed()
        if changed and outcome != "broken":
            outcome, how = "escaped", f"changed {', '.join(changed)}: {how}"
        table[name] = {"outcome": outcome, "how": how, "guarantee": run.guarantee, "control": run.control or "none"}
    return table
