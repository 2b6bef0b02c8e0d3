//! Performs the effects of a decision once it is durable.

use super::call::Kind;
use super::state::{Moment, Worker};
use super::timers::Timer;
use crate::clock::Timestamp;
use crate::executor::decide::Effect;

impl Worker {
    pub(super) fn finish_if_ended(&mut self) {
        let ended = self.active.as_ref().is_some_and(|active| !active.run.state.is_active());
        if ended {
            self.fence_former_owner();
            self.forget_call();
            if let Some(active) = &self.active {
                self.ports.brakes.forget(active.run.id);
            }
            self.active = None;
        }
    }

    /// Performs effects whose decision is durable.
    pub(super) fn perform(&mut self, effects: &[Effect], moment: Moment) {
        if let Some(active) = &mut self.active {
            active.spans.follow(&active.run);
        }
        for effect in effects {
            match *effect {
                Effect::Observe { step } => self.start_call(Kind::Observe, step),
                Effect::Act { step } if self.comes_too_late(step) => {}
                Effect::Act { step } => self.start_call(Kind::Act, step),
                Effect::Verify { step } => self.start_call(Kind::Verify, step),
                Effect::Stop { step } => self.stop_call(step),
                Effect::Forget => self.forget_call(),
                Effect::Wake { step, at } => self.arm(Timer::Wake { step }, at, moment),
                Effect::Deadline { step, at } => self.arm(Timer::Deadline { step, at }, at, moment),
                Effect::TimeLimit { at } => self.arm(Timer::TimeLimit, at, moment),
                Effect::RaiseFence { epoch } => self.raise_fence(epoch),
            }
        }
    }

    /// Arms a timer for a wall-clock time that was computed at `moment`.
    fn arm(&mut self, timer: Timer, at: Timestamp, moment: Moment) {
        if let Some(active) = &mut self.active {
            active.timers.arm(timer, moment.monotonic + at.since(moment.wall));
        }
    }
}
