"""A Python script that knows nothing of oao, as an agent: it runs as `__main__`, in the main thread, to its end."""

from __future__ import annotations

import contextvars
import hashlib
import importlib.util
import os
import queue
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Final, TypeVar, cast

from oao_harness.adapters.script_end import collected_exits, wait_for_threads
from oao_harness.adapters.script_traceback import show_error
from oao_harness.errors import AgentError, RunHalted
from oao_harness.runtime import context
from oao_harness.runtime.execute import interruption
from oao_hookspecs import Json

__all__ = ["MainThread", "Script", "ScriptAdapter", "ScriptError"]

T = TypeVar("T")

# How long a script may take to unwind by itself after a halt, before it is interrupted, and after that.
_UNWIND_S: Final = 0.5
_INTERRUPTED_S: Final = 1.0
_POLL_S: Final = 0.05


class ScriptError(Exception):
    """A script ended with an exit code that says it failed."""


class Script:
    """A script or module, and how it is started.

    Args:
        what: Path of the script, or name of the module.
        args: What it finds in `sys.argv[1:]`.
        is_module: True starts it as `python -m` does.
        stage: Lends it the main thread; without one it runs in the thread that drives it.

    Raises:
        AgentError: It is not there, is a folder, cannot be read, or has a syntax error.
    """

    def __init__(
        self, what: str, args: Sequence[str] = (), *, is_module: bool = False, stage: MainThread | None = None
    ) -> None:
        self.what = what
        self.args = tuple(args)
        self.is_module = is_module
        self._stage = stage
        found: tuple[types.CodeType, ModuleSpec | None, str] = _module_code(what) if is_module else _script_code(what)
        self._code, self._spec, self.path = found
        self.name = what if is_module else Path(what).name
        self.digest = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()[:16]
        """Of its text: a run goes on only with the script that it began with."""
        self.exit_code: int | None = None
        """What it ended with; None where it did not end by itself."""

    @property
    def origin(self) -> dict[str, Json]:
        """What `from_origin` makes the same script of, in the same folder."""
        return {"what": self.what, "args": list(self.args), "module": self.is_module, "folder": str(Path.cwd())}

    @classmethod
    def from_origin(cls, origin: Mapping[str, Json], stage: MainThread) -> Script:
        """Return the script of a journaled run.

        Raises:
            AgentError: See `Script`; or the command is given in another folder than the script was started in.
        """
        what, folder = str(origin.get("what")), str(origin.get("folder"))
        if str(Path.cwd()) != folder:
            raise AgentError(f"the script {what!r} was started in {folder!r}; go there and give the command again")
        args = cast("list[Json]", origin.get("args") or [])
        return cls(what, [str(one) for one in args], is_module=origin.get("module") is True, stage=stage)

    def perform(self) -> object:
        """Run the script to its end, its threads and exit functions included.

        Raises:
            ScriptError: It ended with another exit code than 0.
            RunSuspended: Ctrl-C ended it.
            BaseException: What it raised itself.
        """
        here = contextvars.copy_context()

        def body() -> object:
            return here.run(self._body)

        return body() if self._stage is None else self._stage.perform(body)

    def _body(self) -> object:
        main, argv, path = sys.modules.get("__main__"), sys.argv, list(sys.path)
        module = types.ModuleType("__main__")
        module.__dict__.update(__file__=self.path, __spec__=self._spec, __cached__=None, __builtins__=__builtins__)
        if self._spec is None:
            module.__dict__.update(__loader__=SourceFileLoader("__main__", self.path), __package__=None)
        else:
            module.__dict__.update(__loader__=self._spec.loader, __package__=self._spec.parent)
        sys.modules["__main__"] = module
        sys.argv = [self.path if self.is_module else self.what, *self.args]
        sys.path[:1] = [str(Path.cwd()) if self.is_module else os.path.dirname(os.path.realpath(self.path))]
        try:
            error = self._run(module)
        finally:
            sys.argv, sys.path[:] = argv, path
            if main is not None:
                sys.modules["__main__"] = main
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
        run = context.here.get()
        if isinstance(error, KeyboardInterrupt) and (run is None or run.halted is None):
            raise interruption() from error
        if error is not None:
            raise error
        if self.exit_code:
            raise ScriptError(f"the script ended with exit code {self.exit_code}")
        if run is not None and not run.calls and run.halted is None:
            run.note_ungoverned(f"script {self.name!r}: no model call and no tool call of it was seen")
        return None

    def _run(self, module: types.ModuleType) -> BaseException | None:
        """Run the code; return what it raised, after that was shown."""
        raised: BaseException | None = None
        with collected_exits(self._show) as exits:
            before = set(threading.enumerate())
            try:
                exec(self._code, module.__dict__)  # noqa: S102 - the user's own script, as they asked for
            except SystemExit as end:
                self.exit_code = _exit_code(end)
            except BaseException as error:  # noqa: BLE001 - what a script raises, its starter shows
                raised = error
                self._show(error)
                self.exit_code = 130 if isinstance(error, KeyboardInterrupt) else 1
            else:
                self.exit_code = 0
            try:
                wait_for_threads(before)
                exits.run()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, or the end of a halted run
                raised = raised or error
        return raised

    def _show(self, error: BaseException) -> None:
        """Show a traceback as Python does; a halt has a report that says more."""
        run = context.here.get()
        is_over = run is not None and run.halted is not None
        if isinstance(error, RunHalted) or (is_over and isinstance(error, KeyboardInterrupt)):
            return
        show_error(error)


class ScriptAdapter:
    """Drives a `Script`."""

    name = "script"

    def matches(self, agent: object) -> bool:
        """Return True for a `Script`."""
        return isinstance(agent, Script)

    def sees(self, agent: object) -> bool:
        """Return True: what a script will import is not known yet; that it did nothing is said when it has ended."""
        return True

    def is_async(self, agent: object) -> bool:
        """Return False: a script starts a loop by itself."""
        return False

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the script."""
        return cast("Script", agent).perform()

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the script; blocks the loop."""
        return self.drive(agent, task, tools)

    def output(self, result: object) -> object:
        """Return nothing: what a script has to say it prints."""
        return result


class MainThread:
    """The main thread, lent to a script: signals, `input()` and `asyncio.run` work there as they do without oao.

    The run is managed in a thread of its own, so that its report comes although the script hangs.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._over = False

    def lend(self, work: Callable[[], int]) -> int:
        """Do work in another thread, and here what it hands to `perform`; return the exit code that it returns.

        Where a script still runs after that, it is interrupted, and the process ended where that does not help.
        """
        found: list[int | BaseException] = []

        def target() -> None:
            try:
                found.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that lent itself
                found.append(error)
            self._over = True
            self._jobs.put(None)
            self._end(found[0])

        threading.Thread(target=contextvars.copy_context().run, args=(target,), name="oao-run", daemon=True).start()
        while True:
            try:
                job = self._jobs.get()
                if job is None:
                    break
                job()
            except KeyboardInterrupt:
                if not self._over:
                    raise
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def perform(self, body: Callable[[], T]) -> T:
        """Run a body in the main thread and return what it returns.

        Raises:
            RunHalted: The run is halted, and the body did not end soon after that.
            BaseException: What the body raised.
        """
        run = context.here.get()
        done = threading.Event()
        found: list[tuple[T | None, BaseException | None]] = []

        def job() -> None:
            self._idle.clear()
            try:
                found.append((body(), None))
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                found.append((None, error))
            finally:
                done.set()
                self._idle.set()

        self._jobs.put(job)
        halted_at: float | None = None
        while not done.wait(_POLL_S if run is not None else None):
            if run is None or run.halted is None:
                continue
            halted_at = halted_at or time.monotonic()
            if time.monotonic() - halted_at > _UNWIND_S:
                raise run.halted
        value, error = found[0]
        if error is not None:
            raise error
        return cast("T", value)

    def _end(self, code: int | BaseException) -> None:
        if self._idle.wait(0 if isinstance(code, int) else _UNWIND_S):
            return
        signal.raise_signal(signal.SIGINT) if os.name == "nt" else os.kill(os.getpid(), signal.SIGINT)
        if self._idle.wait(_INTERRUPTED_S):
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        # What catches even that would go on for ever.
        os._exit(code if isinstance(code, int) else 1)


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)  # noqa: T201 - what Python does with it
    return 1


def _script_code(what: str) -> tuple[types.CodeType, None, str]:
    path = Path(what)
    if path.is_dir():
        raise AgentError(f"{what!r} is a folder; name a script in it, or a module with -m")
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        hint = "a module is started with -m" if not what.endswith(".py") else "check its path"
        raise AgentError(f"there is no script {what!r} in {str(Path.cwd())!r}; {hint}") from None
    except OSError as error:
        raise AgentError(f"script {what!r} cannot be read: {error.strerror or error}") from error
    return _compiled(source, str(path.absolute()), what), None, str(path.absolute())


def _compiled(source: bytes, path: str, shown: str) -> types.CodeType:
    try:
        return compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise AgentError(f"{shown}:{error.lineno}: {type(error).__name__}: {error.msg}") from error
    except ValueError as error:
        raise AgentError(f"{shown!r} is no Python script: {error}") from error


def _module_code(name: str) -> tuple[types.CodeType, ModuleSpec, str]:
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                raise AgentError(f"{name!r} is a package without __main__; name a module of it")
    except (ImportError, ValueError) as error:
        raise AgentError(f"there is no module {name!r}: {error}") from error
    finally:
        sys.path.pop(0)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise AgentError(f"there is no module {name!r} in {str(Path.cwd())!r} or installed that could be run")
    return _compiled(Path(spec.origin).read_bytes(), spec.origin, spec.origin), spec, spec.origin
