"""A session with bmdemo: register, start, watch over a restart of the server, and read typed errors.

Usage: session.py ADDRESS:PORT
"""

import importlib.resources
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO_DIR = pathlib.Path(__file__).resolve().parents[2] / "proto"
RECONNECT_LIMIT_S = 60
DEADLINE_S = 30


def generate():
    """Generates the code of our protos into a temporary directory and imports it."""
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory() as out:
        options = [f"-I{PROTO_DIR}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *options, "baremetal/v1/baremetal.proto"]) != 0:
            sys.exit("protoc failed")
        sys.path.insert(0, out)
        from baremetal.v1 import baremetal_pb2, baremetal_pb2_grpc

        sys.path.remove(out)
    return baremetal_pb2, baremetal_pb2_grpc


def expect(holds, what):
    if not holds:
        sys.exit(f"does not hold: {what}")
    print(f"ok  {what}", flush=True)


def details(error):
    """The typed details of an error, by the name of their message: {"ErrorInfo": ..., "BadRequest": ...}."""
    found = {}
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        name = packed.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        found[name] = message
    return found


def refused(call, code, reason):
    """The details of the error that a call must end with."""
    try:
        call()
    except grpc.RpcError as error:
        found = details(error)
        info = found.get("ErrorInfo")
        expect(
            error.code() == code and info and (info.domain, info.reason) == ("baremetal.v1", reason),
            f"{code.name} with the reason {reason}",
        )
        return found
    sys.exit(f"does not hold: {reason} was to be refused")


def patiently(call):
    """Calls again while the server is away. Safe for mutations too: they carry a request_id."""
    until = time.monotonic() + RECONNECT_LIMIT_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise
            time.sleep(retry_delay(error))


def retry_delay(error):
    retry = details(error).get("RetryInfo")
    return retry.retry_delay.ToMilliseconds() / 1000 if retry else 0.2


def watch(pb, runs, run_id):
    """Yields every event of a run once, whatever happens to the connection, and None where it was resumed."""
    revision, shown, lost_at = 0, 0, None
    while True:
        request = pb.WatchRunsRequest(filter=f"run_id={run_id}", resume_from=revision)
        try:
            for event in runs.WatchRuns(request, wait_for_ready=True):
                lost_at = None
                revision = event.revision or revision
                # A watch that broke before SYNCED starts over, with a state that may have been shown.
                if event.HasField("snapshot") and event.snapshot.revision > shown:
                    shown = event.snapshot.revision
                    yield event
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > RECONNECT_LIMIT_S:
                raise
            time.sleep(retry_delay(error))
            yield None


def session(address):
    pb, stubs = generate()
    # The default backoff grows to two minutes; a restart takes seconds.
    channel = grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 1000)])
    machines, runs = stubs.MachineServiceStub(channel), stubs.RunServiceStub(channel)
    machine_id = f"python-{uuid.uuid4().hex[:8]}"

    machine = pb.Machine(machine_id=machine_id, spec=pb.MachineSpec(provider="fake"))
    request = pb.RegisterMachineRequest(machine=machine, request_id=str(uuid.uuid4()))
    machine = patiently(lambda: machines.RegisterMachine(request, timeout=DEADLINE_S))
    expect(machine.status.phase == pb.PHASE_FACTORY_READY, f"{machine_id} is registered")

    start = pb.StartRunRequest(machine_id=machine_id, type=pb.RUN_TYPE_REPAVE, request_id=str(uuid.uuid4()))
    run = patiently(lambda: runs.StartRun(start, timeout=DEADLINE_S))
    again = patiently(lambda: runs.StartRun(start, timeout=DEADLINE_S))
    expect(again.run_id == run.run_id, "the same request_id is the same run")

    other = pb.StartRunRequest(machine_id=machine_id, type=pb.RUN_TYPE_REBOOT, request_id=str(uuid.uuid4()))
    call = lambda: patiently(lambda: runs.StartRun(other, timeout=DEADLINE_S))
    info = refused(call, grpc.StatusCode.FAILED_PRECONDITION, "RUN_ACTIVE")["ErrorInfo"]
    expect(info.metadata["active_run_id"] == run.run_id, "the error names the active run")

    print(f"watching {run.run_id}", flush=True)
    resumed, seen, last = 0, [], None
    for event in watch(pb, runs, run.run_id):
        if event is None:
            resumed += 1
            continue
        last = event.snapshot
        seen.append(last.revision)
        print(f"    {last.revision} {event.message or 'as it is'}", flush=True)
    print(f"resumed {resumed} times", flush=True)
    expect(last.phase == pb.RUN_PHASE_SUCCEEDED, "the watch ends by itself when the run has succeeded")
    expect(all(a < b for a, b in zip(seen, seen[1:])), "every change came once and in order")
    states = {(step.name, step.state) for step in last.steps}
    steps = ("set-netboot", "repave", "mint-join", "join", "verify")
    expect(states == {(step, pb.STEP_STATE_SUCCEEDED) for step in steps}, "all five steps succeeded")

    machine = machines.GetMachine(pb.GetMachineRequest(machine_id=machine_id), timeout=DEADLINE_S)
    expect(machine.status.effective_state == pb.EFFECTIVE_STATE_IN_SERVICE, "the machine is in service")

    bad = pb.Machine(machine_id="No Id!", spec=pb.MachineSpec(provider="fake", mac_addresses=["02:zz"]))
    call = lambda: machines.RegisterMachine(pb.RegisterMachineRequest(machine=bad), timeout=DEADLINE_S)
    found = refused(call, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    fields = [violation.field for violation in found["BadRequest"].field_violations]
    expect(fields == ["machine.machine_id", "machine.spec.mac_addresses[0]"], "every wrong field is named")

    call = lambda: machines.GetMachine(pb.GetMachineRequest(machine_id="nowhere"), timeout=DEADLINE_S)
    found = refused(call, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    expect(found["ResourceInfo"].resource_name.endswith("nowhere"), "the error names what is missing")
    print("session complete")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    session(sys.argv[1])
