//! Deadlines: a request whose caller no longer waits is not carried out.

use std::time::Duration;

use super::harness::{Harness, machine_id, new_run, origin};
use crate::clock::Clock;
use crate::executor::EngineError;
use crate::executor::request::{MachineChanges, NewMachine, Origin, Verb};
use crate::ids::{Revision, RunId};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::Resolution;
use crate::model::MachineSpec;

/// A mutation, and what must have happened before it can be carried out.
#[derive(Debug, Clone)]
enum Ask {
    Register,
    RegisterMany,
    Update,
    Clear,
    Delete,
    Start,
    Retry,
    Operate(Verb),
}

fn new_machine(number: usize) -> NewMachine {
    let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
    NewMachine { id: machine_id(number), labels: [].into(), spec, in_service: false }
}

/// The outcome of repave cannot be known, or it fails permanently.
const UNKNOWABLE: &str = "step=repave do=fail-after times=1; step=repave do=unknowable times=2";
const FAILING: &str = "step=repave do=fail-permanent times=1";

impl Ask {
    fn all() -> Vec<Self> {
        let verbs = [
            Verb::Cancel,
            Verb::Abort,
            Verb::Pause,
            Verb::Resume,
            Verb::Skip { step: "repave".to_owned() },
            Verb::Resolve { step: "repave".to_owned(), resolution: Some(Resolution::Done) },
            Verb::Answer { step: String::new(), yes: true },
        ];
        let others = [
            Self::Register,
            Self::RegisterMany,
            Self::Update,
            Self::Clear,
            Self::Delete,
            Self::Start,
            Self::Retry,
        ];
        others.into_iter().chain(verbs.map(Self::Operate)).collect()
    }

    /// An engine in which it can be carried out.
    async fn ready(&self) -> (Harness, Option<RunId>) {
        let run = match self {
            Self::Register | Self::RegisterMany | Self::Update | Self::Start => {
                let harness = Harness::new("").await;
                harness.register(1).await;
                return (harness, None);
            }
            Self::Delete => {
                let harness = Harness::new("").await;
                harness.register(1).await;
                harness.set_phase(1, Phase::Retired).await.unwrap();
                return (harness, None);
            }
            Self::Clear | Self::Retry => {
                let (harness, run) = Harness::running(FAILING, "plan/repave-join").await;
                harness.finished(run).await;
                (harness, run)
            }
            Self::Operate(Verb::Resume | Verb::Skip { .. }) => {
                let (harness, run) = Harness::at_step("", "plan/repave-join", 0).await;
                harness.operate(run, Verb::Pause).await.unwrap();
                harness.until(run, |run| run.state == run::State::Held).await;
                (harness, run)
            }
            Self::Operate(Verb::Answer { .. }) => super::language::asking().await,
            Self::Operate(Verb::Resolve { .. }) => {
                let (harness, run) = Harness::running(UNKNOWABLE, "plan/repave-join").await;
                harness.until(run, |run| run.state == run::State::Held).await;
                (harness, run)
            }
            Self::Operate(Verb::Cancel | Verb::Abort | Verb::Pause) => {
                Harness::at_step("", "plan/repave-join", 1).await
            }
        };
        (run.0, Some(run.1))
    }

    async fn send(
        &self,
        harness: &Harness,
        run: Option<RunId>,
        origin: &Origin,
    ) -> Result<(), EngineError> {
        let (engine, id) = (&harness.engine, machine_id(1));
        let run = run.unwrap_or(RunId::new(harness.clock.now(), [0, 0]));
        match self {
            Self::Register => engine.register_machine(origin, new_machine(2)).await.map(drop),
            Self::RegisterMany => {
                let new = vec![new_machine(2), new_machine(3)];
                let results = engine.register_machines(origin, new).await?;
                results.into_iter().try_for_each(|result| result.map(drop))
            }
            Self::Update => {
                let serial = Some("s-1".to_owned());
                let changes = MachineChanges { serial, ..MachineChanges::default() };
                engine.update_machine(origin, &id, changes).await.map(drop)
            }
            Self::Clear => engine.clear_intervention(origin, &id).await.map(drop),
            Self::Delete => engine.delete_machine(origin, &id).await,
            Self::Start => engine.start_run(origin, new_run(1, "plan/repave-join")).await.map(drop),
            Self::Retry => engine.retry_run(origin, run).await.map(drop),
            Self::Operate(verb) => engine.operate(origin, run, verb.clone()).await.map(drop),
        }
    }
}

async fn revision(harness: &Harness) -> Revision {
    harness.store.revisions().await.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn a_mutation_is_not_carried_out_after_its_deadline() {
    for ask in Ask::all() {
        let (harness, run) = ask.ready().await;
        let before = revision(&harness).await;
        let now = harness.clock.monotonic();
        for request_id in ["", "once"] {
            let request_id = request_id.to_owned();
            let late = Origin { deadline: Some(now), request_id, ..origin() };
            let answer = ask.send(&harness, run, &late).await;
            assert!(matches!(answer, Err(EngineError::DeadlineExceeded)), "{ask:?}: {answer:?}");
            assert_eq!(revision(&harness).await, before, "{ask:?} changed something");
        }
        // It leaves no trace: the same request in time is carried out.
        let deadline = Some(now + Duration::from_millis(1));
        let in_time = Origin { deadline, request_id: "once".to_owned(), ..origin() };
        ask.send(&harness, run, &in_time).await.unwrap_or_else(|error| panic!("{ask:?}: {error}"));
        assert!(revision(&harness).await > before, "{ask:?} changed nothing");
    }
}
