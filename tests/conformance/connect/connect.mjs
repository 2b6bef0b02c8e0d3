// Calls a server with the clients of Connect, and prints a line for each check: "ok NAME" or "FAIL NAME: what was seen".
//
// Usage: node connect.mjs ADDRESS:PORT DESCRIPTORS

import { readFileSync } from "node:fs";

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport as overNode } from "@connectrpc/connect-node";
import { createConnectTransport as overFetch } from "@connectrpc/connect-web";

const [address, descriptors] = process.argv.slice(2);
const baseUrl = `http://${address}`;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));

function check(name, holds, seen) {
  console.log(holds ? `ok ${name}` : `FAIL ${name}: ${JSON.stringify(seen)}`);
}

async function errorOf(call) {
  try {
    await call();
  } catch (error) {
    return ConnectError.from(error);
  }
  return undefined;
}

function reasonOf(error) {
  return error?.details.find((detail) => detail.type === "google.rpc.ErrorInfo")?.debug?.reason;
}

async function checkTransport(name, transport) {
  const service = (short) => createClient(registry.getService(`baremetal.v1.${short}`), transport);
  const [machines, runs] = [service("MachineService"), service("RunService")];
  const machineId = name.replaceAll(" ", "-").toLowerCase();
  const machine = { machineId, spec: { provider: "fake" }, labels: { made: "by connect" } };
  const registered = await machines.registerMachine({ machine, requestId: machineId });
  check(`${name}: a machine is registered`, registered.machineId === machineId, registered.machineId);
  const page = await machines.listMachines({ filter: `machine_id=${machineId}` });
  const found = page.machines[0];
  const isTyped = typeof page.revision === "bigint" && found?.createdAt?.seconds > 0n;
  check(`${name}: it is listed, with its types`, isTyped && found.labels.made === "by connect", found?.machineId);
  const missing = await errorOf(() => machines.getMachine({ machineId: "nowhere" }));
  check(`${name}: an error has its code and details`, missing?.code === Code.NotFound && reasonOf(missing) === "NOT_FOUND", missing);
  const wrong = await errorOf(() => machines.listMachines({ filter: "((" }));
  check(`${name}: a wrong filter is refused`, wrong?.code === Code.InvalidArgument && reasonOf(wrong) === "FILTER_INVALID", wrong);

  const leave = new AbortController();
  const seen = [];
  const ended = await errorOf(async () => {
    for await (const event of runs.watchRuns({ filter: `machine_id=${machineId}` }, { signal: leave.signal })) {
      seen.push(event.type);
      if (seen.length === 1) {
        await runs.startRun({ machineId, planId: "plan/reboot", requestId: `run-${machineId}` });
      } else {
        leave.abort();
      }
    }
  });
  check(`${name}: a watch says what happens`, seen.length > 1 && ended?.code === Code.Canceled, seen);
  const [run] = (await runs.listRuns({ filter: `machine_id=${machineId}` })).runs;
  const done = await runs.waitRun({ runId: run.runId });
  check(`${name}: a run ends`, done.runId === run.runId, done.phase);
  let chunks = 0;
  for await (const chunk of runs.streamRunLogs({ runId: run.runId })) {
    chunks += chunk.data.length > 0 ? 1 : 0;
  }
  check(`${name}: its logs end`, chunks > 0, chunks);
  const none = await errorOf(async () => {
    for await (const _ of runs.streamRunLogs({ runId: "00000000-0000-7000-8000-000000000000" })) {
      break;
    }
  });
  check(`${name}: the error of a stream has its details`, none?.code === Code.NotFound && reasonOf(none) === "NOT_FOUND", none);
  const late = await errorOf(() => machines.listMachines({}, { headers: { "connect-timeout-ms": "0" } }));
  check(`${name}: a deadline is kept`, late?.code === Code.DeadlineExceeded, late);
}

for (const httpVersion of ["1.1", "2"]) {
  for (const useBinaryFormat of [false, true]) {
    const format = useBinaryFormat ? "protobuf" : "JSON";
    const transport = overNode({ baseUrl, httpVersion, useBinaryFormat, useHttpGet: true });
    await checkTransport(`connect-node over HTTP ${httpVersion} in ${format}`, transport);
  }
}
await checkTransport("connect-web in JSON", overFetch({ baseUrl, useHttpGet: true }));
process.exit(0);
