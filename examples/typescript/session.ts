// A session with bmdemo: register, start, watch over a restart of the server, and read typed errors.
//
// Usage: node dist/session.js [--proto-dir=DIR] ADDRESS:PORT

import { randomUUID } from "node:crypto";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";
import * as protobuf from "protobufjs";

const RECONNECT_LIMIT_MS = 60_000;
const DEADLINE_MS = 30_000;

// The parts of the messages that this session looks at, in the shape that proto-loader gives them.
interface Machine {
  machine_id: string;
  status: { phase: string; effective_state: string };
}

interface Run {
  run_id: string;
  phase: string;
  revision: string;
  steps: { name: string; state: string }[];
}

interface RunEvent {
  snapshot: Run | null;
  message: string;
  revision: string;
}

// What google.rpc.Status holds, as far as this session reads it: https://google.aip.dev/193
const DETAILS = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message FieldViolation { string field = 1; string description = 2; }
  message BadRequest { repeated FieldViolation field_violations = 1; }
  message ResourceInfo { string resource_type = 1; string resource_name = 2; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

interface Details {
  ErrorInfo?: { reason: string; domain: string; metadata: Record<string, string> };
  BadRequest?: { field_violations: { field: string; description: string }[] };
  ResourceInfo?: { resource_type: string; resource_name: string };
  RetryInfo?: { retry_delay: { seconds: number; nanos: number } };
}

function decode(name: string, bytes: Uint8Array): Record<string, unknown> {
  const type = DETAILS.lookupType(`google.rpc.${name}`);
  return type.toObject(type.decode(bytes), { arrays: true, objects: true, longs: Number, defaults: true });
}

/** The typed details of an error, by the name of their message. */
function details(error: grpc.ServiceError): Details {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(packed)) {
    return {};
  }
  const status = decode("Status", packed) as { details: { type_url: string; value: Uint8Array }[] };
  const name = (url: string) => url.slice(url.lastIndexOf(".") + 1);
  const named = status.details.map(({ type_url, value }) => [name(type_url), value] as const);
  const known = named.filter(([name]) => DETAILS.lookup(`google.rpc.${name}`) !== null);
  return Object.fromEntries(known.map(([name, value]) => [name, decode(name, value)]));
}

function expect(holds: unknown, what: string): void {
  if (!holds) {
    throw new Error(`does not hold: ${what}`);
  }
  console.log(`ok  ${what}`);
}

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

function isAway(error: unknown): error is grpc.ServiceError {
  return isServiceError(error) && error.code === grpc.status.UNAVAILABLE;
}

function retryDelayMs(error: grpc.ServiceError): number {
  const delay = details(error).RetryInfo?.retry_delay;
  return delay ? delay.seconds * 1000 + delay.nanos / 1e6 : 200;
}

function call<T>(client: grpc.Client, method: string, request: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + DEADLINE_MS;
    const answer = (error: grpc.ServiceError | null, value: T) => (error ? reject(error) : resolve(value));
    (client as unknown as Record<string, Function>)[method]!(request, { deadline }, answer);
  });
}

/** Calls again while the server is away. Safe for mutations too: they carry a request_id. */
async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
  const until = Date.now() + RECONNECT_LIMIT_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isAway(error) || Date.now() > until) {
        throw error;
      }
      await sleep(retryDelayMs(error));
    }
  }
}

/** The details of the error that a call must end with. */
async function refused(attempt: () => Promise<unknown>, code: grpc.status, reason: string): Promise<Details> {
  try {
    await attempt();
  } catch (error) {
    if (!isServiceError(error)) {
      throw error;
    }
    const found = details(error);
    const { domain, reason: given } = found.ErrorInfo ?? {};
    const holds = error.code === code && domain === "baremetal.v1" && given === reason;
    expect(holds, `${grpc.status[code]} with the reason ${reason}`);
    return found;
  }
  throw new Error(`does not hold: ${reason} was to be refused`);
}

/** Yields every event of a run once, whatever happens to the connection, and null where it was resumed. */
async function* watch(runs: grpc.Client, runId: string): AsyncGenerator<RunEvent | null> {
  let [revision, shown, lostAt] = ["0", 0n, 0];
  for (;;) {
    try {
      const request = { filter: `run_id=${runId}`, resume_from: revision };
      const options = new grpc.Metadata({ waitForReady: true });
      const open = (runs as unknown as Record<string, Function>)["WatchRuns"]!;
      const stream = open.call(runs, request, options) as AsyncIterable<RunEvent>;
      for await (const event of stream) {
        lostAt = 0;
        revision = event.revision === "0" ? revision : event.revision;
        // A watch that broke before SYNCED starts over, with a state that may have been shown.
        if (event.snapshot && BigInt(event.snapshot.revision) > shown) {
          shown = BigInt(event.snapshot.revision);
          yield event;
        }
      }
      return;
    } catch (error) {
      lostAt ||= Date.now();
      if (!isAway(error) || Date.now() - lostAt > RECONNECT_LIMIT_MS) {
        throw error;
      }
      await sleep(retryDelayMs(error));
      yield null;
    }
  }
}

async function session(address: string, protoDir: string): Promise<void> {
  const definition = protoLoader.loadSync("baremetal/v1/baremetal.proto", {
    includeDirs: [protoDir],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  });
  const api = (grpc.loadPackageDefinition(definition)["baremetal"] as grpc.GrpcObject)["v1"] as grpc.GrpcObject;
  const connect = (service: string) =>
    new (api[service] as grpc.ServiceClientConstructor)(address, grpc.credentials.createInsecure(), {
      // The default backoff grows to two minutes; a restart takes seconds.
      "grpc.max_reconnect_backoff_ms": 1000,
    });
  const [machines, runs] = [connect("MachineService"), connect("RunService")];
  const machineId = `typescript-${randomUUID().slice(0, 8)}`;

  const registration = { machine: { machine_id: machineId, spec: { provider: "fake" } }, request_id: randomUUID() };
  const registered = await patiently(() => call<Machine>(machines, "RegisterMachine", registration));
  expect(registered.status.phase === "PHASE_FACTORY_READY", `${machineId} is registered`);

  const start = { machine_id: machineId, type: "RUN_TYPE_REPAVE", request_id: randomUUID() };
  const run = await patiently(() => call<Run>(runs, "StartRun", start));
  const again = await patiently(() => call<Run>(runs, "StartRun", start));
  expect(again.run_id === run.run_id, "the same request_id is the same run");

  const other = { machine_id: machineId, type: "RUN_TYPE_REBOOT", request_id: randomUUID() };
  const active = await refused(
    () => patiently(() => call(runs, "StartRun", other)),
    grpc.status.FAILED_PRECONDITION,
    "RUN_ACTIVE",
  );
  expect(active.ErrorInfo?.metadata["active_run_id"] === run.run_id, "the error names the active run");

  console.log(`watching ${run.run_id}`);
  let resumed = 0;
  let last: Run | undefined;
  for await (const event of watch(runs, run.run_id)) {
    if (event?.snapshot) {
      last = event.snapshot;
      console.log(`    ${last.revision} ${event.message || "as it is"}`);
    } else {
      resumed += 1;
    }
  }
  console.log(`resumed ${resumed} times`);
  expect(last?.phase === "RUN_PHASE_SUCCEEDED", "the watch ends by itself when the run has succeeded");
  const steps = last?.steps.map(({ name, state }) => `${name} ${state}`) ?? [];
  const names = ["set-netboot", "repave", "mint-join", "join", "verify"];
  expect(steps.join() === names.map((name) => `${name} STEP_STATE_SUCCEEDED`).join(), "all five steps succeeded");

  const machine = await patiently(() => call<Machine>(machines, "GetMachine", { machine_id: machineId }));
  expect(machine.status.effective_state === "EFFECTIVE_STATE_IN_SERVICE", "the machine is in service");

  const bad = { machine_id: "No Id!", spec: { provider: "fake", mac_addresses: ["02:zz"] } };
  const invalid = await refused(
    () => call(machines, "RegisterMachine", { machine: bad }),
    grpc.status.INVALID_ARGUMENT,
    "FIELD_INVALID",
  );
  const fields = invalid.BadRequest?.field_violations.map(({ field }) => field) ?? [];
  expect(fields.join() === "machine.machine_id,machine.spec.mac_addresses[0]", "every wrong field is named");

  const nowhere = () => call(machines, "GetMachine", { machine_id: "nowhere" });
  const missing = await refused(nowhere, grpc.status.NOT_FOUND, "NOT_FOUND");
  expect(missing.ResourceInfo?.resource_name.endsWith("nowhere"), "the error names what is missing");
  machines.close();
  runs.close();
  console.log("session complete");
}

const { values, positionals } = parseArgs({
  options: { "proto-dir": { type: "string", default: path.resolve(__dirname, "../../../proto") } },
  allowPositionals: true,
});
const [address] = positionals;
if (address === undefined) {
  console.error("usage: node dist/session.js [--proto-dir=DIR] ADDRESS:PORT");
  process.exitCode = 2;
} else {
  session(address, values["proto-dir"]).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}
