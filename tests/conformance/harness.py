"""Servers of the conformance run, a client made from reflection alone, and the tally of checks."""

import atexit
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Far above what a loaded machine needs: only a hang reaches it.
PATIENCE_S = 60
SERVICES = ["baremetal.v1.MachineService", "baremetal.v1.PlanService", "baremetal.v1.RunService",
            "baremetal.v1.ServerService", "baremetal.v1.AuditService",
            "baremetal.v1.LockService"]
DOMAIN = "baremetal.v1"


class Tally:
    """Counts checks, and continues after one that failed."""

    def __init__(self):
        self.passed, self.failed = 0, []

    def check(self, name, holds, seen=""):
        if holds:
            self.passed += 1
            print(f"ok    {name}", flush=True)
        else:
            self.failed.append(name)
            print(f"FAIL  {name}: {seen}", flush=True)
        return holds

    def section(self, name, function, *arguments):
        print(f"\n-- {name}", flush=True)
        try:
            function(*arguments)
        except Exception:  # A section that breaks is a failed check; the others still run.
            self.check(name, False, "\n" + traceback.format_exc())


class Server:
    """A server process on a port of its own."""

    live = set()

    def __init__(self, binary, data_dir, *args):
        self.binary, self.data_dir, self.args = binary, data_dir, args
        self.port, self.process = 0, None
        self.start()

    def start(self):
        """Starts it, the second time on the port of the first, and waits until it is ready."""
        where = ["--data-dir", str(self.data_dir)] if self.data_dir else ["--ephemeral"]
        command = [str(self.binary), "--port", str(self.port), *where, *self.args]
        # Signals stay as they are here: a server that may not write must see the error, not SIGXFSZ.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            restore_signals=False,
        )
        Server.live.add(self)
        self.log = []
        threading.Thread(target=lambda err: self.log.extend(err), args=(self.process.stderr,), daemon=True).start()
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{command} printed {line!r}; log:\n{''.join(self.log)}")
        self.address = line.removeprefix("listening on ").strip()
        self.port = int(self.address.rpartition(":")[2])

    def stop(self, how=signal.SIGTERM):
        """Ends it and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended()

    def ended(self):
        """Waits until it has ended, and returns its exit status."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            Server.live.discard(self)

    def channel(self):
        """A connection that is not shared."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
        return grpc.insecure_channel(self.address, options=options)


@atexit.register
def stop_all():
    for server in list(Server.live):
        server.process.kill()
        server.process.wait()


# A kill of the script ends the servers too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Api:
    """Every RPC of the server, built from reflection."""

    def __init__(self, channel):
        self.channel = channel
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.methods, self.answered = {}, set()
        for service in SERVICES:
            for method in self.pool.FindServiceByName(service).methods:
                self.methods[method.name] = method

    def message(self, name, **fields):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"baremetal.v1.{name}"))(**fields)

    def value(self, name):
        """Number of an enum value, by its name alone."""
        file = self.pool.FindFileByName("baremetal/v1/baremetal.proto")
        return next(e.values_by_name[name].number for e in file.enum_types_by_name.values() if name in e.values_by_name)

    def touches(self, name):
        """What a method touches, as its option says."""
        # The options of the messages here do not know extensions of this pool.
        options = message_factory.GetMessageClass(self.pool.FindMessageTypeByName("google.protobuf.MethodOptions"))
        extension = self.pool.FindExtensionByName("baremetal.v1.touches")
        return options.FromString(self.methods[name].GetOptions().SerializeToString()).Extensions[extension]

    def path(self, name):
        return f"/{self.methods[name].containing_service.full_name}/{name}"

    def raw(self, name, body, timeout=PATIENCE_S):
        """Sends bytes; returns the answers as bytes."""
        if self.methods[name].server_streaming:
            return list(self.channel.unary_stream(self.path(name))(body, timeout=timeout))
        return [self.channel.unary_unary(self.path(name))(body, timeout=timeout)]

    def __getattr__(self, name):
        method = self.methods.get(name) if name[0].isupper() else None
        if method is None:
            raise AttributeError(name)
        answer = message_factory.GetMessageClass(method.output_type)
        request = message_factory.GetMessageClass(method.input_type)
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = kind(self.path(name), request.SerializeToString, answer.FromString)

        def call(**fields):
            if method.server_streaming:
                on_answer = lambda: self.answered.add(name)
                return Stream(stub(request(**fields), timeout=PATIENCE_S), on_answer)
            value = stub(request(**fields), timeout=PATIENCE_S)
            self.answered.add(name)
            return value

        return call


class Stream:
    """A call that answers with a stream."""

    def __init__(self, call, on_answer):
        self.call, self.on_answer = call, on_answer

    def __iter__(self):
        return self

    def __next__(self):
        value = next(self.call)
        self.on_answer()
        return value

    def until(self, holds):
        """Everything up to the first answer for which `holds`, included."""
        seen = []
        for value in self:
            seen.append(value)
            if holds(value):
                return seen
        raise RuntimeError(f"the stream ended without it; seen {seen}")

    def cancel(self):
        self.call.cancel()


def details(error):
    """The typed details of an error, by the name of their message."""
    found = {}
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        name = packed.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        packed.Unpack(found[name])
    return found


def error_of(call):
    """The error that a call ends with; a stream is read until then."""
    try:
        value = call()
        if isinstance(value, Stream):
            for _ in value:
                pass
    except grpc.RpcError as error:
        return error
    return None


def eventually(what, call):
    """The first value of `call` that is true."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        value = call()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(what)


def server_binary():
    """The binary under test: BMDEMO_SERVER, or the debug build."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = pathlib.Path(os.environ.get("BMDEMO_SERVER", target / "debug" / "bmdemo-server"))
    if not path.is_file():
        sys.exit(f"{path} is not there: build it (cargo build --bins), or name another one in BMDEMO_SERVER")
    return path
