//! Records for tests: arbitrary ones from a seed, and small plausible ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{SplitMix64, Timestamp};
use crate::ids::{Epoch, MachineId, OperationId, Revision, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::{run, step};
use crate::model::{
    Actor, ActorKind, AuditEntry, Condition, ConditionKind, Cursor, Decision, Entry, EntryKind,
    Hold, HoldReason, InstallStage, Installation, Lock, LockTarget, LogChunk, LogStream, Machine,
    MachineSpec, Run, RunError, RunErrorCode, RunSpec, RunType, StepRecord, UntrustedDisks,
};
use crate::plan::{Value, Values};
use crate::store::{CursorMove, LockMove};

/// Arbitrary records: every field gets every kind of value, sensible or not.
pub(super) struct Sampler(pub(super) SplitMix64);

impl Sampler {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap()
    }

    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.chance(1, 2).then(|| make(self))
    }

    fn text(&mut self) -> String {
        let pieces = ["", "a", "\"", "\\", "\n", "ü", "\u{1F680}", "\u{0}", "{", " plain words "];
        (0..self.below(4)).map(|_| self.pick(&pieces)).collect()
    }

    fn map(&mut self) -> BTreeMap<String, String> {
        (0..self.below(3)).map(|_| (self.text(), self.text())).collect()
    }

    fn number(&mut self) -> u64 {
        let shift = self.below(64);
        self.0.next_u64() >> shift
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.below(1 << 30)).unwrap() >> self.below(30)
    }

    fn time(&mut self) -> Timestamp {
        Timestamp(self.number())
    }

    fn run_id(&mut self) -> RunId {
        RunId::new(Timestamp(self.number() >> 20), [self.0.next_u64(), self.0.next_u64()])
    }

    fn machine_id(&mut self) -> MachineId {
        MachineId::parse(&format!("m{}", self.number())).unwrap()
    }

    fn actor(&mut self) -> Actor {
        Actor {
            kind: self.pick(&ActorKind::ALL),
            name: self.text().into(),
            verified: self.pick(&[false, true]),
        }
    }

    pub(super) fn machine(&mut self) -> Machine {
        let mut spec = MachineSpec {
            provider: self.text(),
            ssh_endpoint: self.text(),
            bmc_endpoint: self.text(),
            target_cluster: self.text(),
            mac_addresses: (0..self.below(3)).map(|_| self.text()).collect(),
            serial: self.text(),
            bmc_system_id: self.text(),
            bmc_credentials: self.text(),
            bmc_certificate_sha256: self.text(),
        };
        let id = self.machine_id();
        // Each belongs to one machine.
        for mac in &mut spec.mac_addresses {
            *mac = format!("{id}/{mac}");
        }
        let mut machine = Machine::registered(id, self.map(), spec, self.time());
        machine.phase = self.pick(&Phase::ALL);
        for kind in ConditionKind::ALL {
            let condition = self.maybe(|sampler| Condition {
                status: sampler.0.chance(1, 2),
                reason: sampler.text(),
                message: sampler.text(),
                last_transition_at: sampler.time(),
                observed_by: sampler.text(),
                plan_id: sampler.text(),
            });
            if let Some(condition) = condition {
                machine.conditions.set(kind, condition);
            }
        }
        machine.active_run = self.maybe(Self::run_id);
        machine.epoch = Epoch(self.number());
        machine.destructive_at = (0..self.below(3)).map(|_| self.time()).collect();
        machine.untrusted_disks = self.maybe(|sampler| UntrustedDisks {
            run_id: sampler.run_id(),
            run_type: sampler.pick(&RunType::ALL),
            plan_id: sampler.text(),
            step: sampler.text(),
            at: sampler.time(),
        });
        machine.updated_at = self.time();
        machine.ordinal = self.number();
        machine.revision = Revision(self.number());
        machine
    }

    fn basis(&mut self) -> step::Basis {
        let (checks, cut_off) = (self.small(), self.0.chance(1, 2));
        let unknown = step::Basis::Unknown { checks, cut_off };
        self.pick(&[step::Basis::Fresh, step::Basis::Poll, unknown])
    }

    fn step_state(&mut self) -> step::State {
        let (attempt, checks, until) = (self.small(), self.small(), self.time());
        let basis = self.basis();
        self.pick(&[
            step::State::Waiting,
            step::State::Observing { attempt, basis },
            step::State::Acting { attempt },
            step::State::Polling { attempt, until },
            step::State::Verifying { attempt, checks },
            step::State::BackingOff { attempt, until, basis },
            step::State::Unknown { attempt },
            step::State::Succeeded,
            step::State::Failed,
            step::State::Skipped,
            step::State::Canceled,
        ])
    }

    fn output(&mut self) -> Values {
        let mut output = Values::new();
        for _ in 0..self.below(3) {
            let name = if self.0.chance(1, 2) { "handle".to_owned() } else { self.text() };
            let value = match self.below(4) {
                0 => Value::Int(-7),
                1 => Value::Bool(self.0.chance(1, 2)),
                2 => Value::DurationMs(self.number()),
                _ => Value::Str(self.text().into()),
            };
            output.insert(name, value);
        }
        output
    }

    pub(super) fn step(&mut self) -> StepRecord {
        StepRecord {
            name: self.text(),
            state: self.step_state(),
            attempt: self.small(),
            unknowns: self.small(),
            interrupted: self.small(),
            operation: self
                .maybe(|sampler| OperationId::from_stored(&format!("op {}", sampler.text()))),
            handle: self.maybe(Self::text),
            started_at: self.maybe(Self::time),
            attempt_at: self.maybe(Self::time),
            deadline_at: self.maybe(Self::time),
            finished_at: self.maybe(Self::time),
            message: self.text(),
            expected: self.text(),
            observed: self.text(),
            output: self.output(),
            unsent: self.0.chance(1, 2),
            retry_at: self.maybe(Self::time),
            set: (0..self.below(3))
                .map(|_| (self.pick(&ConditionKind::ALL), self.maybe(|it| it.0.chance(1, 2))))
                .collect(),
            compensates: self.maybe(|sampler| sampler.below(9)),
        }
    }

    pub(super) fn run(&mut self) -> Run {
        let id = self.run_id();
        let steps = (0..self.below(5)).map(|_| {
            let mut step = self.step();
            if self.0.chance(1, 2) {
                step.operation = Some(OperationId::new(id, &step.name, step.attempt));
            }
            step
        });
        let steps = steps.collect();
        Run {
            id,
            machine_id: self.machine_id(),
            spec: Arc::new(RunSpec {
                provider: self.text(),
                labels: self.maybe(Self::map),
                request_id: self.text(),
                run_type: self.pick(&RunType::ALL),
                plan_id: self.text(),
                plan_digest: self.text(),
                parameters: self.map(),
                retry_of: self.maybe(Self::run_id),
                requested_by: self.actor(),
                reason: self.text(),
                forced: self.0.chance(1, 2),
            }),
            state: self.pick(&run::State::ALL),
            steps,
            current_step: self.maybe(|sampler| sampler.below(9)),
            error: self.maybe(|sampler| RunError {
                code: sampler.pick(&RunErrorCode::ALL),
                message: sampler.text(),
                retryable: sampler.0.chance(1, 2),
                step: sampler.text(),
            }),
            hold: self.maybe(|sampler| Hold {
                reason: sampler.pick(&HoldReason::ALL),
                message: sampler.text(),
                since: sampler.time(),
            }),
            cancel_requested_at: self.maybe(Self::time),
            queued_at: self.maybe(Self::time),
            created_at: self.time(),
            started_at: self.maybe(Self::time),
            finished_at: self.maybe(Self::time),
            ordinal: self.number(),
            revision: Revision(self.number()),
        }
    }

    pub(super) fn entry(&mut self) -> Entry {
        Entry {
            kind: self.pick(EntryKind::ALL),
            step: self.text(),
            from: self.text(),
            to: self.text(),
            reason: self.text(),
            message: self.text(),
            actor: self.actor(),
        }
    }

    /// A change of a run such as the engine might make: header and some steps, sometimes with an additional step.
    pub(super) fn change_run(&mut self, before: &Run) -> Run {
        let mut after = self.run();
        after.steps = before.steps.clone();
        for place in 0..after.steps.len() {
            if self.0.chance(1, 3) {
                after.steps[place] = self.step();
            }
        }
        if self.0.chance(1, 3) {
            after.steps.push(self.step());
        }
        Run {
            id: before.id,
            machine_id: before.machine_id.clone(),
            spec: before.spec.clone(),
            created_at: before.created_at,
            state: before.state,
            finished_at: before.finished_at,
            ordinal: before.ordinal,
            revision: before.revision,
            ..after
        }
    }
}

/// A registered machine, `machine-<number>`.
pub(super) fn machine(number: u64) -> Machine {
    let id = MachineId::parse(&format!("machine-{number}")).unwrap();
    let spec = MachineSpec {
        provider: "fake".to_owned(),
        mac_addresses: vec![format!("02:00:00:00:00:{number:02x}")],
        ..MachineSpec::default()
    };
    Machine::registered(id, BTreeMap::new(), spec, Timestamp(1_700_000_000_000))
}

/// Id of the run with a number.
pub(super) fn run_id(number: u64) -> RunId {
    RunId::new(Timestamp(1_700_000_000_000 + number), [number, number])
}

/// A run of plan/repave-join that was accepted on a machine.
pub(super) fn run(number: u64, machine_id: &MachineId) -> Run {
    let steps = ["set-netboot", "repave", "mint-join", "join", "verify"];
    let run = crate::testing::run(run_id(number), machine_id.clone(), Timestamp(1_700_000_000_000));
    Run {
        spec: Arc::new(RunSpec {
            labels: Some([("rack".to_owned(), "r1".to_owned())].into()),
            request_id: format!("request-{number}"),
            run_type: RunType::Repave,
            plan_id: "plan/repave-join".to_owned(),
            plan_digest: "sha256:0123456789abcdef".to_owned(),
            requested_by: Actor::operator("someone"),
            ..(*run.spec).clone()
        }),
        steps: steps.into_iter().map(StepRecord::waiting).collect(),
        ..run
    }
}

/// A chunk of the log of a run.
pub(super) fn chunk(run: RunId, offset: u64) -> LogChunk {
    LogChunk {
        run_id: run,
        offset,
        at: Timestamp(1_700_000_000_000 + offset),
        step: "repave".to_owned(),
        attempt: 1,
        stream: LogStream::ALL[usize::try_from(offset % 3).unwrap()],
        text: format!("line {offset}\n"),
        truncated: offset % 7 == 6,
    }
}

/// An installation whose image is written.
pub(super) fn installation() -> Installation {
    Installation {
        stage: InstallStage::Written,
        image_sha256: "00ff".repeat(16),
        boot_id: "a boot".to_owned(),
        message: "written in 9 s".to_owned(),
        ..Installation::begin(OperationId::new(run_id(1), "repave", 1), Timestamp(7))
    }
}

/// A stop.
pub(super) fn lock(id: &str) -> Arc<Lock> {
    Arc::new(Lock {
        id: id.to_owned(),
        target: LockTarget::All,
        reason: "smoke in the hall".to_owned(),
        by: Actor::operator("ann"),
        at: Timestamp(7),
        until: None,
        lifted_at: None,
    })
}

/// The end of a run that destroys data; the plan is paused at the last of `most` failures in a row.
pub(super) fn tally(failed: bool, most: u32) -> LockMove {
    let target = LockTarget::Plan { digest: "digest".to_owned(), plan_id: "plan/rma".to_owned() };
    let pause = Lock { target, ..Lock::clone(&lock("plan-1")) };
    LockMove::Tally { digest: "digest".to_owned(), failed, most, pause: Arc::new(pause) }
}

/// A step of the cursor of the receiver `ops` to what comes after a commit.
pub(super) fn cursor_move(before: Option<Cursor>, passed: u64) -> CursorMove {
    let owner = before.map_or(Epoch(1), |before| before.owner);
    let after = Cursor { owner, ..Cursor::after(Revision(passed)) };
    CursorMove { receiver: "ops".to_owned(), before, after }
}

/// What the audit says of a call.
pub(super) fn audit_entry(number: u64) -> AuditEntry {
    AuditEntry {
        decision: if number.is_multiple_of(5) { Decision::Denied } else { Decision::Done },
        principal: "ann".into(),
        verified: number.is_multiple_of(2),
        proof: if number.is_multiple_of(2) { "certificate".to_owned() } else { String::new() },
        peer: "127.0.0.1:4711".to_owned(),
        rpc: "StartRun".to_owned(),
        objects: vec![format!("machines/machine-{number}"), format!("runs/{}", run_id(number))],
        request_id: "a request".to_owned(),
        reason: "a reason, \"quoted\"".to_owned(),
        body_digest: "00ff".to_owned(),
        plan_digest: "ff00".to_owned(),
        calls: number,
    }
}
