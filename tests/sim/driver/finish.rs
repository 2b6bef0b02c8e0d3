//! The end of a simulation: the world heals, and then everything must be in order.

use std::sync::Arc;

use bmdemo::executor::Engine;
use bmdemo::executor::request::Verb;
use bmdemo::lifecycle::machine::Phase;
use bmdemo::lifecycle::step::{Resolution, State};
use bmdemo::model::{HoldReason, Run};

use super::{Driver, machine, request};
use crate::client::Ask;
use crate::gate::{Incarnation, Life};
use crate::invariants::{
    self, promise_05_nothing_is_stuck, promise_08_ended_runs_are_as_they_ended,
    promise_09_a_watch_misses_and_repeats_nothing, promise_10_the_world_agrees,
    promise_11_a_cancel_is_never_lost, promise_12_a_slow_watcher_catches_up,
    the_audit_speaks_of_every_request,
};
use crate::watcher::{Seen, Sleeper, Watcher};

/// Time that an operator gives the runs between two checks, once the world has healed.
const ROUND_MS: u64 = 10 * 60 * 1_000;

/// Rounds after which a run that has not ended is stuck: three days. The longest timeout of a plan is twelve hours.
const ROUNDS_MAX: u64 = 3 * 24 * 6;

impl Driver {
    /// Heals the world, and lets operators act until every run has ended.
    pub(super) async fn settle(&mut self) {
        self.sim.note("the world heals");
        self.sim.heal();
        self.clients.outage_changed();
        self.end_zombie();
        let dead =
            self.current.as_ref().is_none_or(|(who, _)| self.sim.gates.life(*who) == Life::Dead);
        if dead || self.orphans {
            self.restart().await;
        }
        self.let_runs_end().await;
    }

    /// Operators act until every run has ended and every request was answered.
    pub(crate) async fn let_runs_end(&self) {
        for _ in 0..ROUNDS_MAX {
            self.sim.sleep_ms(ROUND_MS).await;
            let active: Vec<Arc<Run>> = {
                let oracle = self.sim.oracle();
                let book = &oracle.book;
                book.active.values().flatten().map(|id| book.runs[id].clone()).collect()
            };
            let is_free = self.lift_all();
            if is_free && active.is_empty() && self.unanswered().is_empty() {
                return;
            }
            for run in active {
                self.help(&run);
            }
        }
    }

    /// Lifts what is stopped and paused; whether nothing was.
    fn lift_all(&self) -> bool {
        let Some((who, engine)) = &self.current else { return true };
        let is_free = engine.locks().is_empty();
        for lock in engine.locks() {
            self.sim.oracle().book.is_stopped = false;
            self.clients.send(engine, *who, request(Ask::Unlock { id: lock.id.clone() }));
        }
        is_free
    }

    fn unanswered(&self) -> Vec<String> {
        self.current.as_ref().map_or_else(Vec::new, |(who, _)| self.clients.unanswered(*who))
    }

    /// What an operator does about a run that waits for one.
    fn help(&self, run: &Run) {
        let Some((who, engine)) = &self.current else { return };
        let Some(hold) = &run.hold else { return };
        let verb = match hold.reason {
            HoldReason::WrongHardware => {
                let ask = Ask::Inspect { machine: run.machine_id.clone() };
                self.clients.send(engine, *who, request(ask));
                Verb::Resume
            }
            HoldReason::Paused
            | HoldReason::LoopBreaker
            | HoldReason::Restored
            | HoldReason::EngineFault => Verb::Resume,
            HoldReason::Approval => Verb::Answer { step: String::new(), yes: true },
            HoldReason::OutcomeUnknown => {
                let unknown =
                    run.steps.iter().find(|step| matches!(step.state, State::Unknown { .. }));
                let Some(step) = unknown else { return };
                Verb::Resolve { step: step.name.clone(), resolution: Some(Resolution::Retry) }
            }
        };
        self.clients.send(engine, *who, request(Ask::Operate { run: run.id, verb }));
    }

    pub(super) async fn finish(&mut self, watchers: &[Watcher], sleeper: Sleeper) {
        let Some((who, engine)) = self.current.clone() else { return };
        let unanswered = self.unanswered();
        {
            let mut oracle = self.sim.oracle();
            let verdict = promise_05_nothing_is_stuck(&oracle.book, &unanswered);
            oracle.judge("promise_05_nothing_is_stuck", verdict);
            let verdict = promise_11_a_cancel_is_never_lost(&oracle.book);
            oracle.judge("promise_11_a_cancel_is_never_lost", verdict);
            let verdict = promise_10_the_world_agrees(&self.world.ledger());
            oracle.judge("promise_10_the_world_agrees", verdict);
            if !oracle.violations.is_empty() {
                return;
            }
        }
        self.reboot_all(&engine, who).await;
        // Long enough for a bookmark.
        self.sim.sleep_ms(60_000).await;
        let head = self.sim.oracle().book.head;
        let slow = sleeper.wake(head).await;
        self.compare().await;
        self.judge_watchers(watchers, &slow);
        let book = std::mem::take(&mut self.sim.oracle().book);
        let verdict = promise_08_ended_runs_are_as_they_ended(&book, &self.store).await;
        let audit = the_audit_speaks_of_every_request(&self.store).await;
        let mut oracle = self.sim.oracle();
        oracle.judge("the_audit_speaks_of_every_request", audit);
        oracle.book = book;
        oracle.judge("promise_08_ended_runs_are_as_they_ended", verdict);
    }

    fn judge_watchers(&self, watchers: &[Watcher], slow: &Seen) {
        let mut oracle = self.sim.oracle();
        for watcher in watchers {
            let verdict = promise_09_a_watch_misses_and_repeats_nothing(
                &oracle.book,
                &format!("{:?}", watcher.scope),
                &watcher.seen(),
                &watcher.scope,
            );
            oracle.judge("promise_09_a_watch_misses_and_repeats_nothing", verdict);
        }
        let verdict = promise_12_a_slow_watcher_catches_up(&oracle.book, slow);
        oracle.judge("promise_12_a_slow_watcher_catches_up", verdict);
    }

    /// Every machine that accepts work can be worked on: none is left in a state that nothing leads out of.
    async fn reboot_all(&self, engine: &Engine, who: Incarnation) {
        for number in 1..=self.sim.profile.machines {
            let machine = machine(number);
            self.clients.ask(engine, who, request(Ask::Clear { machine: machine.clone() })).await;
            let ask = Ask::Start { machine: machine.clone(), plan: "plan/reboot", force: false };
            self.clients.ask(engine, who, request(ask)).await;
        }
        self.let_runs_end().await;
        let mut oracle = self.sim.oracle();
        for number in 1..=self.sim.profile.machines {
            let book = &oracle.book;
            let Some(record) = book.machines.get(&machine(number)) else { continue };
            let runs = book.runs.values().filter(|run| run.machine_id == record.id);
            let newest = runs.max_by_key(|run| run.ordinal);
            let works = record.active_run.is_none()
                && (matches!(record.phase, Phase::Rma | Phase::Retired)
                    || newest.is_some_and(|run| {
                        run.spec.plan_id == "plan/reboot"
                            && run.phase() == bmdemo::lifecycle::run::Phase::Succeeded
                    }));
            let verdict = invariants::ensure(works, || {
                let newest = newest.map(|run| (run.id, &run.spec.plan_id, run.state, &run.error));
                format!("{} cannot be rebooted: {newest:?}", record.id)
            });
            oracle.judge("promise_05_every_machine_can_be_worked_on", verdict);
        }
    }
}
