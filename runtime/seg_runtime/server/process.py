"""Runs a Triton server as a child process that leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from seg_runtime.errors import ServerError, ServerLostError, ServerTimeoutError
from seg_runtime.server.access import Locks, program_flags
from seg_runtime.server.check import RepositoryCheck, require_servable, with_steps
from seg_runtime.server.child import WatchedProgram
from seg_runtime.server.concealment import close_memory, hide_arguments
from seg_runtime.server.health import model_states, reachable_host
from seg_runtime.server.leftovers import (
    NAME_VARIABLE,
    memory_prefix,
    new_server_name,
    remove_leftovers,
    remove_server,
)
from seg_runtime.server.locate import ServerProgram, find_server, prepare_backends, server_environment
from seg_runtime.server.log import LogReader
from seg_runtime.server.options import DEFAULT_CACHE_MB, ServerOptions
from seg_runtime.server.ports import choose_ports, require_free
from seg_runtime.server.secret_files import SecretFiles
from seg_runtime.server.watch import ServerWatch, how_it_ended

__all__ = ["TritonServer"]

_LOOK_EVERY_S = 1.0
_STARTING_LOOK_EVERY_S = 0.5
_LOST_GRACE_S = 2.0


class TritonServer:
    """A Triton server for one repository; a context manager that starts and stops it.

    It may be started again after it was stopped or died, on the same ports.

    Args:
        repository: the model repository.
        options: ports, models and limits; the defaults of `ServerOptions`.

    Raises:
        ServerError: no server on this machine, or it cannot run.
        MissingExtraError: nothing is installed that has a server.
    """

    def __init__(self, repository: str | Path, options: ServerOptions | None = None) -> None:
        self.repository = Path(repository).resolve()
        self.options = options or ServerOptions()
        self._program: ServerProgram = find_server()
        self._ports = choose_ports(self.options)
        self._process: WatchedProgram | None = None
        self._log: LogReader | None = None
        self._watch: ServerWatch | None = None
        self._folder: Path | None = None
        self._name = ""
        self._locks = Locks(self.options)
        self._secret: SecretFiles | None = None

    @property
    def http_url(self) -> str:
        return f"http://{reachable_host(self.options.http_host)}:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        scheme = "grpcs" if self.options.tls else "grpc"
        return f"{scheme}://{reachable_host(self.options.host)}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        return f"http://{reachable_host(self.options.metrics_host)}:{self._ports[2]}/metrics"

    @property
    def secret_file(self) -> Path | None:
        """Holds the secret that opens what changes the running server, None where nothing can be opened."""
        return self._secret.paths[0] if self._secret else None

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's log, also after it stopped."""
        return self._log.tail(lines) if self._log else ""

    def start(self) -> RepositoryCheck:
        """Start the server and wait until every model can be used.

        Returns:
            What was found in the repository; models that are not built are not served.

        Raises:
            RepositoryError: the repository or one of its models is broken.
            ServerError: a port is taken, a model cannot be loaded, the server ended.
            ServerTimeoutError: not ready within `options.ready_timeout_s`.
        """
        if self.pid is not None:
            raise ServerError(f"the server is already running as process {self.pid}")
        self.stop()
        remove_leftovers()
        found = require_servable(self.repository, self.options.models)
        require_free(self.options.hosts, self._ports)
        try:
            self._launch(found)
            self._wait_ready(found.servable)
        except BaseException:
            self.stop()
            raise
        return found

    def wait(self) -> None:
        """Wait until the server is stopped by another thread, or is lost; what is left of it is then ended.

        It is lost when it ends, when a process of a model ends that should be served, and when it
        does not answer for `options.hang_timeout_s`. Meanwhile the memory of models that are loaded later
        is closed to other users.

        Raises:
            ServerLostError: it is lost; says why.
            ServerError: it was not started.
        """
        process, watch = self._process, self._watch
        if process is None or watch is None:
            raise ServerError("the server was not started")
        reason = None
        while reason is None:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_LOOK_EVERY_S)
                reason = f"the server ended {how_it_ended(code)}: {self._reason()}"
            if self._process is not process:
                return
            self._conceal()
            reason = reason or watch.look()
        self._end(_LOST_GRACE_S)
        raise ServerLostError(reason)

    def stop(self) -> None:
        """Let running requests finish, end the server and remove what it left behind."""
        self._end(self.options.stop_timeout_s)

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, found: RepositoryCheck) -> None:
        self._log = LogReader(self.options.log_file, self.options.log_to_stderr)
        self._name = new_server_name()
        self._folder = Path(tempfile.gettempdir()) / self._name
        self._folder.mkdir(mode=0o700)
        arguments = prepare_backends(self._program, self._folder)
        environment = server_environment(self._program, self._folder, os.environ)
        # Libraries of the server drop files of their own where temporary files go.
        environment |= {"TMPDIR": str(self._folder), NAME_VARIABLE: self._name}
        if self.options.threads:
            environment["EDGESEG_SERVER_THREADS"] = str(self.options.threads)
        if self._program.own_backend:
            arguments += [
                f"--backend-config={backend},shm-region-prefix-name={memory_prefix(self._name)}"
                for backend in ("onnxruntime", "python")
            ]
        arguments += self._with_cache(found.response_cache).arguments(self._served(found), self._ports)
        arguments += self._lock(program_flags(self._program.executable, environment))
        command = [str(self._program.executable), *arguments]
        self._process = WatchedProgram(command, environment, self._folder, memory_prefix(self._name))
        self._log.follow(self._process.output)
        self._watch = ServerWatch(self._process.pid, self.http_url, self.options.hang_timeout_s)

    def _with_cache(self, asked_for: bool) -> ServerOptions:
        """The options, with a cache when models ask for one and its size was left open."""
        options = self.options
        # A server without the cache's library refuses to start when it is given a size. And the cache
        # tells models by name and version: one that is removed and published anew under its old number
        # while the server runs would get the answers of the old one.
        possible = (self._program.root / "caches" / "local").is_dir() and options.model_control == "none"
        if asked_for and possible and options.response_cache_mb is None:
            return replace(options, response_cache_mb=DEFAULT_CACHE_MB)
        return options

    def _served(self, found: RepositoryCheck) -> Path:
        """What the server gets as its repository: where it is not to follow changes, links to the models."""
        if self.options.model_control != "none" or self._folder is None:
            return self.repository
        links = self._folder / "models"
        links.mkdir()
        for model in with_steps(self.repository, found.servable):
            (links / model).symlink_to(self.repository / model)
        return links

    def _lock(self, flags: str) -> list[str]:
        """Arguments that close what changes the server, with a new secret for those who may."""
        self._locks = Locks(self.options)
        arguments = self._locks.arguments(flags)
        if self.options.client_shared_memory:
            # Servers since 2026 refuse client shared memory without this flag; older ones refuse the flag.
            arguments += ["--allow-client-shm=true"] if "--allow-client-shm" in flags else []
        if self.options.client_shared_memory or self.options.model_control == "explicit":
            self._secret = SecretFiles(self._locks.secret, self._ports)
        return arguments

    def _conceal(self) -> None:
        """Keep keys and memory of the running server from other users of the machine."""
        if self._process and self._log and self._log.has_begun:
            hide_arguments(self._process.pid, self._locks.values)
        if self._name:
            close_memory(memory_prefix(self._name))

    def _wait_ready(self, models: tuple[str, ...]) -> None:
        deadline, next_look = time.monotonic() + self.options.ready_timeout_s, time.monotonic()
        while True:
            if self._process is None or self._watch is None:
                raise ServerError("the server was stopped while it started")
            if (code := self._process.poll()) is not None:
                raise ServerError(f"the server ended {how_it_ended(code)} while it started: {self._reason()}")
            self._conceal()
            states = model_states(self.http_url, self._locks.headers)
            if states is not None:
                broken = next((name for name in models if name in states and states[name].failed), None)
                if broken:
                    reason = states[broken].reason or self._reason(broken)
                    raise ServerError(f"model '{broken}' cannot be served: {reason}")
                if all(name in states and states[name].ready for name in models):
                    self._watch.lost_backend()  # Now it knows the backends, whenever they end.
                    self._conceal()
                    return
            # By the clock: while it loads models, a server may take seconds to answer what they are.
            if time.monotonic() >= next_look:
                if lost := self._watch.lost_backend(starting=True):
                    raise ServerError(f"the server cannot start: {lost}")
                next_look = time.monotonic() + _STARTING_LOOK_EVERY_S
            if time.monotonic() > deadline:
                raise ServerTimeoutError(
                    f"the server is not ready after {self.options.ready_timeout_s:g} s: {self._reason()}"
                )
            time.sleep(0.05)

    def _reason(self, model: str | None = None) -> str:
        if not self._log:
            return "it wrote no log"
        return self._log.reason_for(model) if model else self._log.reason()

    def _end(self, grace_s: float) -> None:
        process, self._process = self._process, None
        try:
            if process is not None:
                process.end(grace_s)
        finally:
            if self._secret:
                self._secret.remove()
                self._secret = None
            if self._log:
                self._log.close()
            if self._name:
                remove_server(self._name)
                self._name, self._folder = "", None
