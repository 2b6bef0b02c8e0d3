//! Requests of the clients.

use bmdemo::clock::SplitMix64;
use bmdemo::executor::request::Verb;
use bmdemo::ids::RunId;
use bmdemo::lifecycle::machine::Phase;
use bmdemo::lifecycle::step::Resolution;

use super::{Driver, machine, request};
use crate::client::{Ask, Request};
use crate::plans::LANGUAGE_ID;

impl Driver {
    /// A client sends a request.
    pub(super) fn ask(&mut self) {
        let Some((who, engine)) = self.current.clone() else { return };
        let times = 1 + self.rng.below(3);
        for _ in 0..times {
            let request = self.next_request();
            self.clients.send(&engine, who, request);
        }
    }

    fn next_request(&mut self) -> Request {
        if !self.past.is_empty() && self.rng.chance(1, 5) {
            let at = pick(&mut self.rng, self.past.len());
            let mut again = self.past[at].clone();
            if self.rng.chance(1, 4) {
                "for another reason".clone_into(&mut again.reason);
            }
            return again;
        }
        let mut request = request(self.next_ask());
        if self.rng.chance(2, 3) {
            request.id = format!("request-{}", self.past.len());
            self.past.push(request.clone());
        }
        request
    }

    fn next_ask(&mut self) -> Ask {
        let machine = machine(1 + self.rng.below(self.sim.profile.machines));
        let run = {
            let oracle = self.sim.oracle();
            let active: Vec<_> = oracle.book.active.values().flatten().copied().collect();
            let all: Vec<RunId> = oracle.book.runs.keys().copied().collect();
            drop(oracle);
            let choice = if self.rng.chance(4, 5) { active } else { all };
            (!choice.is_empty()).then(|| choice[pick(&mut self.rng, choice.len())])
        };
        let plans = self.sim.profile.plans;
        let start = |rng: &mut SplitMix64| Ask::Start {
            machine: machine.clone(),
            plan: plans[pick(rng, plans.len())],
            force: rng.chance(1, 2),
        };
        let Some(run) = run else { return start(&mut self.rng) };
        let operate = |verb| Ask::Operate { run, verb };
        if plans.contains(&LANGUAGE_ID) && self.rng.chance(1, 3) {
            let yes = self.rng.chance(3, 4);
            return operate(Verb::Answer { step: String::new(), yes });
        }
        match self.rng.below(20) {
            0..=6 => start(&mut self.rng),
            7 | 8 => operate(Verb::Cancel),
            9 | 10 => operate(Verb::Pause),
            11 | 12 => operate(Verb::Resume),
            13 => operate(Verb::Abort),
            14 => operate(Verb::Skip { step: self.any_step(run) }),
            15 | 16 => {
                let resolution = match self.rng.below(5) {
                    0 => None,
                    1 => Some(Resolution::Done),
                    2 => Some(Resolution::Skip),
                    _ => Some(Resolution::Retry),
                };
                operate(Verb::Resolve { step: self.any_step(run), resolution })
            }
            17 => Ask::Retry { run },
            18 => Ask::Clear { machine },
            _ if self.rng.chance(1, 2) => Ask::SetLabel { machine, value: self.rng.below(3) },
            _ => {
                let phase = Phase::ALL[pick(&mut self.rng, Phase::ALL.len() - 1)];
                Ask::SetPhase { machine, phase }
            }
        }
    }

    /// The step in progress, or any.
    fn any_step(&mut self, run: RunId) -> String {
        let run = self.sim.oracle().book.runs.get(&run).cloned();
        let Some(run) = run else { return String::new() };
        let current = run.current_step.filter(|_| self.rng.chance(2, 3));
        let place = current.unwrap_or_else(|| pick(&mut self.rng, run.steps.len()));
        run.steps.get(place).map_or_else(String::new, |step| step.name.clone())
    }
}

fn pick(rng: &mut SplitMix64, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}
