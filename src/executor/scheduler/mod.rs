//! Scheduling of machines: slots, the shares of the fleet that bound them, the seats of the workers, recovery after a start, and probes.

mod brakes;
mod dispatch;
pub mod probes;
mod queue;
mod recovery;
mod seats;
mod shares;
mod slots;

pub(super) use dispatch::Scheduler;
