//! What installing a machine asks of whatever controls its power and its boot source.

use std::fmt;

use crate::ids::{Epoch, OperationId};
use crate::model::{MachineFacts, Power};
use crate::provider::{Fut, Target};

/// On whose behalf a machine is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Epoch under which it is.
    pub epoch: Epoch,
    /// The attempt that it is part of.
    pub operation: OperationId,
}

/// Controls the power and the boot source of machines, for example by their BMCs.
///
/// Each call ends when what it asks for is so and has stayed so, or fails; none is refused because it is so already.
pub trait Control: fmt::Debug + Send + Sync + 'static {
    /// The power state.
    fn power<'a>(&'a self, target: &'a Target) -> Fut<'a, Power>;
    /// What the hardware says it is, read now.
    fn facts<'a>(&'a self, target: &'a Target) -> Fut<'a, MachineFacts>;
    /// Switches the machine on.
    fn switch_on<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()>;
    /// Switches the machine off, at once.
    fn switch_off<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()>;
    /// Makes the installer what the machine boots next; the machine is off.
    fn boot_installer<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()>;
    /// Takes the installer away, so that the machine boots from its disk; the machine is off.
    fn boot_disk<'a>(&'a self, target: &'a Target, by: &'a Grant) -> Fut<'a, ()>;
}
