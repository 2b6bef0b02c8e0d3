"""What an independent gRPC stack sees of the real server: every RPC, every error that can be provoked, health,
reflection, and the examples over a restart. Started by run.sh; prints `N passed, M failed` and ends with 0 or 1.
"""

import argparse
import base64
import json
import pathlib
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.request
import uuid

import grpc
import jsonschema
import openapi_spec_validator
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import nonsense
from harness import (
    DOMAIN, PATIENCE_S, ROOT, SERVICES, Api, Server, Tally, details, error_of, eventually, server_binary
)

# Which calls of which machines go wrong.
SCRIPT = "; ".join([
    "machine=slow* do=slow:10m",
    "machine=fails step=reboot do=fail-permanent times=1",
    "machine=unknown* step=reboot call=act do=fail-after times=1",
    "machine=spoiled step=wipe do=fail-permanent",
    "machine=swapped call=probe do=swapped",
])

# Reasons that no client can bring about from outside, and what holds them instead.
NOT_PROVOKED = {
    "ARGUMENT_REFUSED": "only a class with an installer knows its images; src/provider/boot/ and src/executor/tests/ cover it",
    "CAPABILITY_MISSING": "the fake provider has every capability; src/executor/tests/ covers it",
    "PROVIDER_MISSING": "needs a provider that a server had once; src/executor/tests/ covers it",
    "REVISION_CONFLICT": "needs two writes in the same instant; the suite of src/store/suite/ covers it",
    "STORE_FULL": "needs a full disk: a limit on the size of files is another error; src/store/sqlite/ covers it",
    "LEASE_LOST": "needs a second server on one data directory, which its lock refuses; src/store/suite/ covers it",
    "NOT_READY": "lasts from the start until recovery, before the address is printed; src/server/edge.rs covers it",
    "UNAUTHENTICATED": "needs a server with principals; tests/it/tls/tokens.rs covers it",
    "PRINCIPAL_LOCKED": "needs a server with principals; tests/it/tls/locked.rs covers it",
    "PLAN_PAUSED": "needs machines that are not simulated; src/executor/tests/brakes.rs covers it",
    "ROLE_MISSING": "needs a server with principals; tests/it/tls/roles.rs covers it",
    "OUT_OF_SCOPE": "needs a server with principals; src/api/tests/scopes.rs covers it",
    "CREDENTIALS_ENDED": "needs a server with principals; tests/it/tls/tokens.rs covers it",
    "INTERNAL": "a bug of ours; every RPC is sent malformed and empty requests here, and none gives it",
}


def documented():
    """Reason: (code, names of the details, keys of the metadata), from docs/errors.md."""
    text = (ROOT / "docs" / "errors.md").read_text()
    found = {}
    for section in text.split("\n## ")[1:]:
        reason, body = section.split("\n", 1)
        line = next(line for line in body.splitlines() if line.startswith("Code: "))
        code, _, rest = line.partition(". ")
        promised, _, metadata = rest.partition("Metadata:")
        names = lambda text: re.findall(r"`([A-Za-z_]+)`", text)
        found[reason] = (names(code)[0], names(promised), names(metadata))
    return found


class Conformance:
    def __init__(self, tally, server):
        self.tally, self.server = tally, server
        self.check = tally.check
        self.api = Api(server.channel())
        self.documented, self.provoked = documented(), set()

    # Helpers.

    def register(self, machine_id, provider="fake", **fields):
        machine = self.api.message("Machine", machine_id=machine_id, spec={"provider": provider}, **fields)
        return self.api.RegisterMachine(machine=machine, request_id=f"register {machine_id}")

    def start(self, machine_id, plan, **fields):
        return self.api.StartRun(machine_id=machine_id, plan_id=plan, request_id=str(uuid.uuid4()), **fields)

    def ended(self, run, phase):
        run = self.api.WaitRun(run_id=run.run_id)
        self.check(f"the run ends as {phase}", run.phase == self.api.value(f"RUN_PHASE_{phase}"), run)
        return run

    def until(self, run, what, holds):
        """Watches a run until something holds of it."""
        watch = self.api.WatchRuns(filter=f"run_id={run.run_id}")
        event = watch.until(lambda event: event.HasField("snapshot") and holds(event.snapshot))[-1]
        watch.cancel()
        self.check(what, True)
        return event.snapshot

    def fails(self, reason, call):
        """A call must end with a reason, with the code and the details that docs/errors.md promises."""
        error = error_of(call)
        if error is None:
            return self.check(f"{reason} is provoked", False, "the call succeeded")
        code, promised, metadata = self.documented[reason]
        found = details(error)
        info = found.get("ErrorInfo")
        answer = info and (info.domain, info.reason)
        self.check(f"{reason} is provoked", answer == (DOMAIN, reason), f"{error.code()} {answer} {error.details()}")
        self.check(f"{reason} has the code {code}", error.code().name == code, error.code())
        missing = [name for name in promised if name not in found]
        missing += [key for key in metadata if not (info and key in info.metadata)]
        self.check(f"{reason} carries what is documented", not missing, f"lacks {missing}")
        self.provoked.add(reason)
        return found

    # Sections.

    def reflection(self):
        for version in ("v1alpha", "v1"):
            # Both versions have the same messages.
            request, response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
            ask = self.api.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request.SerializeToString, response.FromString,
            )
            symbols = ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.PreconditionFailure", *SERVICES]
            questions = [request(list_services="")] + [request(file_containing_symbol=name) for name in symbols]
            answers = list(ask(iter(questions), timeout=PATIENCE_S))
            named = {service.name for service in answers[0].list_services_response.service}
            self.check(f"{version} lists the services", {*SERVICES, "grpc.health.v1.Health"} <= named, named)
            files = [bool(answer.file_descriptor_response.file_descriptor_proto) for answer in answers[1:]]
            self.check(f"{version} describes services and error details", all(files) and len(files) == len(symbols), files)
        text = (ROOT / "proto/baremetal/v1/baremetal.proto").read_text()
        rpcs = set(re.findall(r"^  rpc (\w+)", text, re.MULTILINE))
        self.check("reflection has every RPC of the proto", set(self.api.methods) == rpcs, rpcs ^ set(self.api.methods))
        for name, method in self.api.methods.items():
            touches, kind = self.api.touches(name), method.input_type
            takes_id = "request_id" in kind.fields_by_name
            # Registering is idempotent by itself.
            fine = touches.object != 0 and takes_id == (touches.mutation and name != "BatchRegisterMachines")
            for part in filter(None, touches.id_field.split(".")):
                fine, kind = fine and part in kind.fields_by_name, kind and kind.fields_by_name[part].message_type
            self.check(f"{name} says what it touches", fine, touches)

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.server.channel())
        statuses = health_pb2.HealthCheckResponse
        ask = health_pb2.HealthCheckRequest
        for service in ("", *SERVICES):
            status = stub.Check(ask(service=service), timeout=PATIENCE_S).status
            self.check(f"{service or 'the server'} is SERVING", status == statuses.SERVING, status)
        error = error_of(lambda: stub.Check(ask(service="none.of.ours"), timeout=PATIENCE_S))
        self.check("Check of an unknown service is NOT_FOUND", error.code() == grpc.StatusCode.NOT_FOUND, error)
        watch = stub.Watch(ask(service="none.of.ours"), timeout=PATIENCE_S)
        status = next(watch).status
        self.check("Watch of an unknown service says SERVICE_UNKNOWN", status == statuses.SERVICE_UNKNOWN, status)
        # The end of the stream would come before the answer to a later call on the connection.
        stub.Check(ask(service=""), timeout=PATIENCE_S)
        self.check("and stays open", watch.is_active())
        watch.cancel()

    def machines(self):
        api = self.api
        registered = self.register("machine-1", labels={"rack": "r1"})
        self.check("RegisterMachine", registered.status.phase == api.value("PHASE_FACTORY_READY"), registered)
        self.check("registering again changes nothing", self.register("machine-1", labels={"rack": "r1"}) == registered)
        batch = [{"machine_id": f"batch-{n}", "spec": {"provider": "fake"}, "labels": {"rack": "r2"}} for n in range(7)]
        results = api.BatchRegisterMachines(machines=[*batch, {"machine_id": "No Id"}]).results
        outcomes = [result.WhichOneof("outcome") for result in results]
        self.check("BatchRegisterMachines answers item by item", outcomes == ["machine"] * 7 + ["error"], outcomes)
        self.check("a refused item has its reason", results[7].error.reason == "FIELD_INVALID", results[7])
        got = api.GetMachine(machine_id="machine-1", read_mask={"paths": ["labels"]})
        self.check("GetMachine with a mask", got.labels["rack"] == "r1" and not got.HasField("spec"), got)

        ids, token = [], ""
        while True:
            page = api.ListMachines(filter='labels.rack = "r2"', page_size=3, page_token=token, with_total_size=True)
            ids += [machine.machine_id for machine in page.machines]
            token = page.next_page_token
            if not token:
                break
        self.check("ListMachines, page by page", ids == [f"batch-{n}" for n in range(7)], ids)
        self.check("the total is counted", page.total_size == 7, page.total_size)
        newest = api.ListMachines(order_by="created_at desc", page_size=1).machines[0].machine_id
        self.check("ListMachines, newest first", newest == "batch-6", newest)

        watch = api.WatchMachines(filter='labels.rack = "r2"')
        kind = lambda name: lambda event: event.type == api.value(f"MACHINE_EVENT_TYPE_{name}")
        seen = watch.until(kind("SYNCED"))
        self.check("WatchMachines begins with what is there", len(seen) == 8, seen)
        machine = {"machine_id": "batch-3", "labels": {"rack": "r2", "row": "4"}}
        updated = api.UpdateMachine(machine=machine, update_mask={"paths": ["labels"]}, request_id="update")
        change = watch.until(kind("CHANGE"))[-1]
        self.check("UpdateMachine is seen by the watch", change.snapshot == updated, change)
        machine = {"machine_id": "batch-3", "labels": {"rack": "r9"}}
        api.UpdateMachine(machine=machine, update_mask={"paths": ["labels.rack"]})
        watch.until(kind("REMOVED"))
        self.check("what leaves the filter is reported", True)
        watch.cancel()
        again = api.WatchMachines(filter='labels.rack = "r2"', resume_from=change.revision)
        removed = next(again)
        self.check("a watch resumes after a revision", kind("REMOVED")(removed), removed)
        again.cancel()

        api.UpdateMachine(machine={"machine_id": "batch-6", "status": {"phase": api.value("PHASE_RETIRED")}},
                          update_mask={"paths": ["status.phase"]}, reason="sold")
        kinds = [entry.kind for entry in api.ListMachineHistory(machine_id="batch-6").entries]
        self.check("ListMachineHistory", "phase.changed" in kinds, kinds)
        kinds = {entry.kind for entry in api.ListHistory(page_size=1000, kind="phase").entries}
        self.check("ListHistory by kind", kinds == {"phase.changed"}, kinds)
        api.DeleteMachine(machine_id="batch-6", reason="sold")
        gone = error_of(lambda: api.GetMachine(machine_id="batch-6"))
        self.check("DeleteMachine", gone.code() == grpc.StatusCode.NOT_FOUND, gone)

    def plans(self):
        plans = {plan.plan_id: plan for plan in self.api.ListPlans().plans}
        built_in = {f"plan/{name}" for name in ("repave-join", "rma", "reboot", "upgrade", "net-reconfig")}
        self.check("ListPlans", built_in | {"plan/hold", "plan/reachable-only"} == set(plans), set(plans))
        plan = self.api.GetPlan(plan_id="repave-join")
        steps = [step.name for step in plan.steps]
        self.check("GetPlan", steps == ["set-netboot", "repave", "mint-join", "join", "verify"], steps)
        self.check("both are the same plan", plan == plans["plan/repave-join"])

    def server_info(self):
        info = self.api.GetServerInfo()
        self.check("GetServerInfo", info.store in ("sqlite", "memory") and info.version and info.runs_max > 0, info)
        who = self.api.WhoAmI()
        self.check("WhoAmI says that nothing was verified", who.name and not who.verified and not who.proof, who)
        access = self.api.CheckAccess(method="StartRun", force=True)
        self.check("CheckAccess names the rule", access.allowed and access.rule, access)
        self.check("GetServerInfo names the providers", list(info.providers) == ["fake"], info)

    def locks(self):
        api = self.api
        self.register("locked")
        labels = {"machine_id": "locked", "labels": {"hall": "wet"}}
        api.UpdateMachine(machine=labels, update_mask={"paths": ["labels.hall"]})
        lock = api.CreateLock(labels={"hall": "wet"}, reason="water", duration={"seconds": 3600})
        self.fails("MACHINE_LOCKED", lambda: self.start("locked", "reboot"))
        listed = api.ListLocks()
        self.check("ListLocks", [one.lock_id for one in listed.locks] == [lock.lock_id], listed)
        lifted = api.DeleteLock(lock_id=lock.lock_id, reason="dry")
        self.check("DeleteLock", lifted.HasField("lifted_at") and not api.ListLocks().locks, lifted)
        stop = api.StopAll(reason="smoke")
        self.check("StopAll", stop.kind == api.value("LOCK_KIND_STOP") and stop.reason == "smoke", stop)
        self.fails("STOPPED", lambda: self.start("locked", "reboot"))
        self.check("GetServerInfo says what is stopped", list(api.GetServerInfo().locks) == [stop], stop)
        resumed = api.ResumeAll(reason="it was toast")
        self.check("ResumeAll", resumed.lock_id == stop.lock_id, resumed)
        self.ended(self.start("locked", "reboot"), "SUCCEEDED")

    def audit(self):
        entries = self.api.ListAudit(page_size=1000).entries
        self.check("ListAudit counts its entries", [entry.seq for entry in entries] == list(range(1, len(entries) + 1)))
        self.check("ListAudit says that no one was verified", entries and not any(entry.verified for entry in entries))
        head = self.api.GetAuditHead()
        self.check("GetAuditHead is the newest entry", head.seq == entries[-1].seq and head.hash == entries[-1].hash, head)
        answer = self.api.VerifyAudit(head=head.line)
        self.check("VerifyAudit", answer.holds and answer.entries == len(entries), answer)
        wrong = error_of(lambda: self.api.VerifyAudit(head=head.line[:-1]))
        self.check("VerifyAudit refuses an altered head", wrong.code() == grpc.StatusCode.INVALID_ARGUMENT, wrong)

    def runs(self):
        api = self.api
        trial = self.start("machine-1", "repave-join", validate_only=True)
        self.check("StartRun, validated only", trial.run_id == "" and not api.ListRuns().runs, trial)
        run = self.start("machine-1", "repave-join")
        watch = list(api.WatchRuns(filter=f"run_id={run.run_id}"))
        ends = watch[-1].snapshot
        self.check("WatchRuns ends by itself with the run", ends.phase == api.value("RUN_PHASE_SUCCEEDED"), ends)
        self.check("GetRun", api.GetRun(run_id=run.run_id) == ends)
        self.ended(run, "SUCCEEDED")
        listed = api.ListRuns(filter="machine_id=machine-1").runs
        self.check("ListRuns", [run.run_id for run in listed] == [ends.run_id], listed)
        chunks = list(api.StreamRunLogs(run_id=run.run_id, follow=True))
        offsets = [chunk.offset for chunk in chunks]
        self.check("StreamRunLogs is dense", offsets == list(range(len(offsets))) and offsets, offsets)
        tail = list(api.StreamRunLogs(run_id=run.run_id, offset=offsets[-1]))
        self.check("StreamRunLogs from an offset", [chunk.offset for chunk in tail] == offsets[-1:], tail)
        kinds = [entry.kind for entry in api.ListRunHistory(run_id=run.run_id, page_size=1000).entries]
        self.check("ListRunHistory", kinds.count("step.succeeded") == 5 and "run.succeeded" in kinds, kinds)

        for name in ("slow-1", "slow-2", "fails", "unknown-1"):
            self.register(name)
        run = self.start("slow-1", "repave-join")
        running = api.value("STEP_STATE_RUNNING")
        self.until(run, "the first step is in progress", lambda run: run.steps[0].state == running)
        skipped = api.SkipStep(run_id=run.run_id, step="verify", reason="checked by hand")
        self.check("SkipStep", skipped.steps[4].state == api.value("STEP_STATE_SKIPPED"), skipped.steps[4])
        api.PauseRun(run_id=run.run_id, reason="look first")
        history = lambda: {entry.kind for entry in api.ListRunHistory(run_id=run.run_id, page_size=1000).entries}
        paused = history()
        self.check("PauseRun is in the history", any("pause" in kind for kind in paused), paused)
        api.ResumeRun(run_id=run.run_id, reason="looked")
        self.check("ResumeRun is in the history", history() > paused, history())
        waited = api.WaitRun(run_id=run.run_id, timeout={"nanos": 1_000_000})
        self.check("WaitRun returns when its time has passed", not waited.HasField("finished_at"), waited)
        canceled = api.CancelRun(run_id=run.run_id, reason="not today")
        self.check("CancelRun", canceled.cancel_requested, canceled)
        self.ended(run, "CANCELED")
        run = self.start("slow-1", "reboot")
        aborted = api.AbortRun(run_id=run.run_id, reason="the machine is on fire")
        self.check("AbortRun", aborted.error.code == "ABORTED", aborted)
        cleared = api.ClearIntervention(machine_id="slow-1", reason="put out")
        kind = api.value("CONDITION_TYPE_NEEDS_INTERVENTION")
        needs = [condition.status for condition in cleared.status.conditions if condition.type == kind]
        self.check("ClearIntervention", needs == [False], cleared)

        failed = self.ended(self.start("fails", "reboot"), "FAILED")
        retried = api.RetryRun(run_id=failed.run_id, request_id="retry")
        self.check("RetryRun", self.ended(retried, "SUCCEEDED").retry_of == failed.run_id)

        # It is on again: the other machine is in the middle of a restart that was aborted.
        seen = api.InspectMachine(machine_id="fails", request_id="look")
        power = seen.status.observed.power == api.value("POWER_STATE_ON")
        self.check("InspectMachine shows what is so now", power and seen.status.capabilities, seen)
        run = self.start("unknown-1", "hold")
        held = api.WaitRun(run_id=run.run_id, return_when_held=True)
        outcome_unknown = api.value("WAIT_REASON_OUTCOME_UNKNOWN")
        self.check("a run is held when the outcome is unknown", held.waiting.reason == outcome_unknown, held)
        done = api.value("STEP_RESOLUTION_DONE")
        api.ResolveStep(run_id=run.run_id, step="reboot", resolution=done, reason="seen to be up")
        self.check("ResolveStep", self.ended(run, "SUCCEEDED").phase == api.value("RUN_PHASE_SUCCEEDED"))
        results = api.BatchStartRuns(request_id="batch", filter='labels.rack = "r2"', plan_id="reboot").results
        outcomes = [result.WhichOneof("outcome") for result in results]
        self.check("BatchStartRuns by a filter", outcomes == ["run"] * 5, results)
        for result in results:
            api.WaitRun(run_id=result.run.run_id)

    def errors(self):
        api = self.api
        phase = lambda machine_id, name, **fields: api.UpdateMachine(
            machine={"machine_id": machine_id, "status": {"phase": api.value(f"PHASE_{name}")}, **fields},
            update_mask={"paths": ["status.phase"]},
        )
        self.register("plain", labels={"rack": "r3"})
        found = self.fails("FIELD_INVALID", lambda: self.register("elsewhere", provider="redfish"))
        violation = found["BadRequest"].field_violations[0]
        self.check("an unknown provider is refused at registration", "it has fake" in violation.description, found)
        found = self.fails("FIELD_INVALID", lambda: self.register("No Id", labels={"": "x"}))
        fields = [violation.field for violation in found["BadRequest"].field_violations]
        self.check("every wrong field is named", len(fields) == 2 and fields[0] == "machine.machine_id", fields)
        found = self.fails("FILTER_INVALID", lambda: api.ListMachines(filter="phase = "))
        self.check("the position is a number", found["ErrorInfo"].metadata["position"].isdigit())
        self.fails("PAGE_TOKEN_INVALID", lambda: api.ListMachines(page_token="made up"))
        token = api.ListMachines(page_size=1).next_page_token
        self.fails("PAGE_TOKEN_MISMATCH", lambda: api.ListMachines(page_token=token, filter="phase=READY"))
        label = lambda value: api.UpdateMachine(
            machine={"machine_id": "plain", "labels": {"row": value}}, update_mask={"paths": ["labels.row"]},
            request_id="once")
        label("1")
        self.fails("REQUEST_ID_REUSED", lambda: label("2"))
        self.fails("MESSAGE_MALFORMED", lambda: api.raw("GetMachine", b"\xff\xff\xff"))
        found = self.fails("MESSAGE_TOO_LARGE", lambda: api.raw("GetMachine", b"\0" * 2_000_000))
        self.check("the largest size is a number", found["ErrorInfo"].metadata["bytes_max"].isdigit(), found)
        packed = api.channel.unary_unary("/baremetal.v1.MachineService/GetMachine")
        compressed = lambda: packed(b"\0" * 1000, timeout=PATIENCE_S, compression=grpc.Compression.Gzip)
        self.fails("COMPRESSION_UNSUPPORTED", compressed)
        found = self.fails("NOT_FOUND", lambda: api.GetMachine(machine_id="nowhere"))
        self.check("the resource is named", found["ResourceInfo"].resource_name.endswith("nowhere"), found)
        other = {"machine_id": "plain", "spec": {"provider": "fake", "mac_addresses": ["02:00:00:00:00:01"]}}
        self.fails("ALREADY_EXISTS", lambda: api.RegisterMachine(machine=other))

        self.fails("ILLEGAL_PHASE", lambda: phase("plain", "IN_SERVICE"))
        self.fails("PHASE_NOT_ALLOWED", lambda: self.start("plain", "upgrade"))
        self.fails("EFFECTIVE_STATE_REFUSED", lambda: self.start("machine-1", "repave-join"))
        self.register("spoiled")
        self.ended(self.start("spoiled", "rma"), "FAILED")
        self.fails("DISKS_UNTRUSTED", lambda: phase("spoiled", "READY"))
        self.register("swapped")
        serial = {"machine_id": "swapped", "spec": {"serial": "S-1"}}
        api.UpdateMachine(machine=serial, update_mask={"paths": ["spec.serial"]})
        seen = api.InspectMachine(machine_id="swapped")
        self.check("the serial number is observed", seen.status.observed.serial == "OTHER-swapped", seen)
        found = self.fails("HARDWARE_MISMATCH", lambda: self.start("swapped", "repave-join"))
        self.fails("CONDITION_NOT_MET", lambda: self.start("plain", "reachable-only"))
        self.fails("NOT_RETIRED", lambda: api.DeleteMachine(machine_id="plain"))
        old = api.GetMachine(machine_id="plain").etag
        machine = {"machine_id": "plain", "labels": {"row": "9"}}
        api.UpdateMachine(machine=machine, update_mask={"paths": ["labels.row"]})
        found = self.fails("ETAG_MISMATCH", lambda: self.start("plain", "reboot", machine_etag=old))
        self.check("the given etag comes back", found["ErrorInfo"].metadata["given"] == old, found)

        run = self.start("slow-2", "reboot")
        self.until(run, "a step is in flight", lambda run: run.current_step == "reboot")
        found = self.fails("RUN_ACTIVE", lambda: self.start("slow-2", "reboot"))
        self.check("the active run is named", found["ErrorInfo"].metadata["active_run_id"] == run.run_id, found)
        self.fails("STEP_STATE", lambda: api.SkipStep(run_id=run.run_id, step="reboot", reason="enough"))
        self.fails("RUN_STATE", lambda: api.ResumeRun(run_id=run.run_id))
        waits = lambda: api.WaitRun(run_id=run.run_id, timeout={"seconds": 60})
        body = api.message("WaitRunRequest", run_id=run.run_id).SerializeToString()
        deadline = error_of(lambda: api.raw("WaitRun", body, timeout=0.3))
        # The stack of the client answers by its own clock, so that the server's ErrorInfo comes too late to be seen.
        self.check("DEADLINE_EXCEEDED is provoked", deadline.code() == grpc.StatusCode.DEADLINE_EXCEEDED, deadline)
        self.provoked.add("DEADLINE_EXCEEDED")
        ended = []
        waiter = threading.Thread(target=lambda: ended.append(waits()))
        waiter.start()
        api.AbortRun(run_id=run.run_id, reason="enough")
        waiter.join(PATIENCE_S)
        self.check("WaitRun is woken by the end", ended and ended[0].HasField("finished_at"), ended)
        self.fails("INTERVENTION_NEEDED", lambda: self.start("slow-2", "reboot"))
        unknown = api.channel.unary_unary("/baremetal.v1.RunService/Fly")
        self.fails("METHOD_UNKNOWN", lambda: unknown(b"", timeout=PATIENCE_S))

    def every_method_refuses_nonsense(self):
        for name, method in self.api.methods.items():
            error = error_of(lambda: self.api.raw(name, b"\x0f\xff\xff"))
            answer = details(error).get("ErrorInfo") if error else None
            self.check(f"{name} refuses what is no message", answer and answer.reason == "MESSAGE_MALFORMED", error)
            # A watch of everything is a good request.
            if name.startswith("Watch"):
                continue
            error = error_of(lambda: self.api.raw(name, b""))
            answer = details(error).get("ErrorInfo") if error else None
            fine = error is None or (answer and answer.domain == DOMAIN and answer.reason in self.documented)
            self.check(f"{name} answers an empty request", fine and not (answer and answer.reason == "INTERNAL"), error)

    def every_method_answered(self):
        silent = set(self.api.methods) - self.api.answered
        self.check("every RPC has answered", not silent, silent)
        for name in sorted(self.api.answered):
            print(f"      {name}")

    def buf(self):
        def curl(method, body):
            url = f"http://{self.server.address}/baremetal.v1.{method}"
            command = ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1"]
            return subprocess.run([*command, "-d", body, url], capture_output=True, text=True, timeout=PATIENCE_S)

        plans = curl("PlanService/ListPlans", "{}")
        self.check("buf curl over reflection v1", plans.returncode == 0 and "plan/repave-join" in plans.stdout, plans)
        run = self.api.ListRuns(filter="machine_id=machine-1").runs[0]
        events = curl("RunService/WatchRuns", f'{{"filter": "run_id={run.run_id}"}}')
        streamed = events.returncode == 0 and "RUN_EVENT_TYPE_SYNCED" in events.stdout
        self.check("buf curl reads a stream to its end", streamed, events)
        missing = curl("MachineService/GetMachine", '{"machineId": "nowhere"}')
        answer = json.loads(missing.stderr)
        info = next(base64.b64decode(d["value"] + "==") for d in answer["details"] if d["type"] == "google.rpc.ErrorInfo")
        typed = answer["code"] == "not_found" and error_details_pb2.ErrorInfo.FromString(info).reason == "NOT_FOUND"
        self.check("buf curl shows the details of errors", missing.returncode != 0 and typed, missing)

    def connect(self):
        """JSON over HTTP: curl, buf curl in its default protocol, and the clients of Connect."""
        url = f"http://{self.server.address}/baremetal.v1.MachineService/ListMachines"
        for version in ("--http1.1", "--http2-prior-knowledge"):
            command = ["curl", "-sS", "-w", "\n%{http_code} %{content_type}", version]
            command += ["-H", "content-type: application/json", "-d", '{"pageSize": 1}', url]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
            body, _, last = answer.stdout.rpartition("\n")
            fine = last == "200 application/json" and len(json.loads(body)["machines"]) == 1
            self.check(f"curl {version} is answered in JSON", fine, answer)

        def curl(method, body, *options):
            url = f"http://{self.server.address}/baremetal.v1.{method}"
            command = ["buf", "curl", *options, "-d", body, url]
            return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

        schema = ["--schema", str(ROOT / "proto")]
        # Without a schema it asks by reflection, a stream in both directions, which needs HTTP/2.
        for options in (["--http2-prior-knowledge"], schema, [*schema, "--http2-prior-knowledge"]):
            name = "buf curl " + " ".join(option for option in options if option.startswith("--"))
            plans = curl("PlanService/ListPlans", "{}", *options)
            self.check(f"{name} calls", plans.returncode == 0 and "plan/repave-join" in plans.stdout, plans)
            run = self.api.ListRuns(filter="machine_id=machine-1").runs[0]
            events = curl("RunService/WatchRuns", f'{{"filter": "run_id={run.run_id}"}}', *options)
            streamed = events.returncode == 0 and "RUN_EVENT_TYPE_SYNCED" in events.stdout
            self.check(f"{name} reads a stream to its end", streamed, events)
            missing = curl("MachineService/GetMachine", '{"machineId": "nowhere"}', *options)
            answer = json.loads(missing.stderr)
            details = [detail["debug"] for detail in answer["details"] if detail["type"] == "google.rpc.ErrorInfo"]
            typed = answer["code"] == "not_found" and details and details[0]["reason"] == "NOT_FOUND"
            self.check(f"{name} shows the details of errors", missing.returncode != 0 and typed, missing)

        clients = ROOT / "target" / "conformance" / "connect"
        descriptors = clients / "baremetal.binpb"
        subprocess.run(["buf", "build", str(ROOT / "proto"), "-o", str(descriptors)], check=True, timeout=PATIENCE_S)
        command = ["node", str(clients / "connect.mjs"), self.server.address, str(descriptors)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
        self.check("the clients of Connect come to an end", answer.returncode == 0, answer)
        for line in answer.stdout.splitlines():
            verdict, _, name = line.partition(" ")
            self.check(name.partition(": {")[0], verdict == "ok", line)

    def openapi(self):
        """The description of the API, judged by a validator that was written elsewhere."""
        url = f"http://{self.server.address}/openapi.json"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            served = json.load(answer)
        printed = subprocess.run([str(self.server.binary), "openapi"], capture_output=True, text=True, timeout=PATIENCE_S)
        self.check("the description is printed as it is served", json.loads(printed.stdout) == served, printed.stderr)
        mistakes = [str(mistake) for mistake in openapi_spec_validator.OpenAPIV31SpecValidator(served).iter_errors()]
        self.check("it is valid OpenAPI 3.1", served["openapi"].startswith("3.1.") and not mistakes, mistakes[:5])
        # What the server answers is what the description says.
        schemas = {"$ref": "#/components/schemas/ListMachinesResponse", "components": served["components"]}
        request = urllib.request.Request(
            f"http://{self.server.address}/baremetal.v1.MachineService/ListMachines", b"{}",
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            machines = json.load(answer)
        mistakes = [mistake.message for mistake in jsonschema.Draft202012Validator(schemas).iter_errors(machines)]
        self.check("an answer is as the description says", machines["machines"] and not mistakes, mistakes[:5])

    def shutdown(self):
        """Ends the server: watches are notified, and it ends well."""
        watch = self.api.WatchRuns(changes_only=True)
        next(watch)
        self.server.process.send_signal(signal.SIGTERM)
        self.fails("SHUTTING_DOWN", lambda: watch)
        status = self.server.ended()
        self.check("the server ends with 0", status == 0, "".join(self.server.log[-5:]))


def limits(conformance, binary):
    server = Server(binary, None)
    channels = [server.channel() for _ in range(3)]
    apis = [Api(channel) for channel in channels]
    watches = []
    for number in range(1_900):
        watches.append(apis[number % 3].WatchRuns(changes_only=True))
    for watch in watches:
        next(watch)
    conformance.check("1900 watches are served", len(watches) == 1_900)
    found = conformance.fails("LIMIT_REACHED", lambda: apis[0].WatchRuns(changes_only=True))
    conformance.check("the limit is named", found["ErrorInfo"].metadata["limit"] == "WATCHERS", found)
    for watch in watches:
        watch.cancel()
    again = eventually("a watch is free", lambda: error_of(lambda: next(apis[0].WatchRuns(changes_only=True))) is None)
    conformance.check("watches that ended make room", again)
    server.stop(signal.SIGKILL)


def storage(conformance, binary, work):
    """Compaction, a store that may not write, and a damaged record, each of which would disturb other sections."""
    settings = work / "retention.toml"
    settings.write_text('[retention]\nended_runs = "1s"\ninterval = "1s"\n')
    data = work / "storage"
    server = Server(binary, data, "--fake-timing", "zero", "--config", str(settings))
    api = Api(server.channel())
    for name in ("kept", "damaged"):
        api.RegisterMachine(machine={"machine_id": name, "spec": {"provider": "fake"}})
    run = api.StartRun(machine_id="kept", plan_id="reboot")
    api.WaitRun(run_id=run.run_id)

    def compacted():
        watch = api.WatchRuns(resume_from=1)
        return error_of(lambda: next(watch)) if error_of(lambda: api.GetRun(run_id=run.run_id)) else watch.cancel()

    eventually("the run is forgotten", compacted)
    found = conformance.fails("REVISION_COMPACTED", lambda: api.WatchRuns(resume_from=1))
    conformance.check("the oldest revision is a number", found["ErrorInfo"].metadata["oldest"].isdigit(), found)
    first = next(api.WatchRuns(resume_from=1, allow_reset=True))
    conformance.check("allow_reset starts over", first.type == api.value("RUN_EVENT_TYPE_RESET"), first)

    # No file may grow: the write-ahead log cannot be written.
    limit = lambda most: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    limit(1)
    register = lambda: api.RegisterMachine(machine={"machine_id": "late", "spec": {"provider": "fake"}})
    conformance.fails("STORE_OUTCOME_UNKNOWN", register)
    # Nothing is written over what may be half there.
    conformance.fails("STORE_UNAVAILABLE", register)
    conformance.check("reads still work meanwhile", api.GetMachine(machine_id="kept").machine_id == "kept")
    # Only a restart restores it, so that both probes of an orchestrator fail.
    health = health_pb2_grpc.HealthStub(server.channel())
    status = lambda service: health.Check(health_pb2.HealthCheckRequest(service=service)).status
    for service in ("", "liveness", "baremetal.v1.RunService"):
        not_serving = status(service) == health_pb2.HealthCheckResponse.NOT_SERVING
        conformance.check(f"health of {service!r} is NOT_SERVING until then", not_serving)
    limit(resource.RLIM_INFINITY)
    server.stop()
    server.start()
    api = Api(server.channel())
    conformance.check("a restart restores it, and the request can be repeated", register().machine_id == "late")
    conformance.check("the server ends with 0", server.stop() == 0, "".join(server.log[-5:]))
    with sqlite3.connect(data / "bmdemo.db") as database:
        database.execute("UPDATE machines SET body = '{' WHERE id = 'damaged'")
    server.start()
    api = Api(server.channel())
    conformance.fails("STORE_CORRUPT", lambda: api.GetMachine(machine_id="damaged"))
    conformance.check("other records are not affected", api.GetMachine(machine_id="kept").machine_id == "kept")
    server.stop()


def reasons(conformance):
    """Every documented reason is provoked, or excused with why not."""
    both = conformance.provoked & set(NOT_PROVOKED)
    conformance.check("no reason is both provoked and excused", not both, both)
    missing = set(conformance.documented) - conformance.provoked - set(NOT_PROVOKED)
    conformance.check("every reason is provoked or excused", not missing, missing)
    for reason in conformance.documented:
        print(f"      {reason:<24} {NOT_PROVOKED.get(reason, 'provoked')}")


def example(tally, server, name, command, how):
    """Runs an example, and restarts the server as soon as the run is in progress."""
    process = subprocess.Popen(
        [*command, server.address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    restarted, lines = False, []
    # A hang ends, and shows in the exit status.
    guard = threading.Timer(2 * PATIENCE_S, process.kill)
    guard.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("    ") and not restarted:
                restarted = True
                server.stop(how)
                server.start()
        status = process.wait()
    finally:
        guard.cancel()
        process.kill()
    text = "".join(lines)
    complete = status == 0 and "session complete" in text
    tally.check(f"{name}: the session holds over a restart by {how.name}", complete, text)
    resumed = re.search(r"^resumed (\d+) times$", text, re.MULTILINE)
    tally.check(f"{name}: its watch was resumed", resumed and int(resumed[1]) > 0, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", action="append", default=[], metavar="NAME=COMMAND", help="an example to run")
    arguments = parser.parse_args()
    binary, tally = server_binary(), Tally()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        plans = ROOT / "tests" / "conformance" / "plans"
        options = ["--fake-timing", "zero", "--fake-script", SCRIPT, "--plans-dir", str(plans)]
        conformance = Conformance(tally, Server(binary, work / "main", *options))
        for name in ("reflection", "health", "machines", "plans", "audit", "server_info", "runs", "errors", "locks", "every_method_refuses_nonsense",
                     "every_method_answered", "buf", "connect", "openapi", "shutdown"):
            tally.section(name.replace("_", " "), getattr(conformance, name))
        tally.section("limits", limits, conformance, binary)
        nonsensical = Conformance(tally, Server(binary, None, "--fake-timing", "zero"))
        tally.section("nonsense", nonsense.section, nonsensical)
        nonsensical.server.stop(signal.SIGKILL)
        tally.section("storage", storage, conformance, binary, work)
        tally.section("reasons", reasons, conformance)
        server = Server(binary, work / "examples", "--fake-timing", "2")
        for number, (name, command) in enumerate(given.split("=", 1) for given in arguments.example):
            for how in (signal.SIGKILL, signal.SIGTERM):
                tally.section(f"example {name}, {how.name}", example, tally, server, name, command.split(), how)
        server.stop()
    print(f"\n{tally.passed} passed, {len(tally.failed)} failed")
    for name in tally.failed:
        print(f"  failed: {name}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
