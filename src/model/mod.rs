//! Plain records of machines, runs and history, and the filters over them. Pure.
//!
//! Neither these records nor the lifecycle states know how they are stored or sent: `store::codec` and `api::convert`
//! have their own forms.

pub mod actor;
pub mod audit;
mod condition;
mod cursor;
mod delta;
pub mod event;
pub mod filter;
pub mod identity;
mod installation;
mod lock;
pub mod machine;
mod observed;
mod record;
pub mod run;
pub mod scope;
mod steps;

pub use actor::{Actor, ActorKind};
pub use audit::{
    AuditEntry, AuditFault, AuditHash, AuditHead, AuditRow, CallFacts, Chain, Decision,
};
pub use condition::{Condition, ConditionKind, Conditions};
pub use cursor::Cursor;
pub use delta::{Header, Progress, RunDelta};
pub use event::{Change, Entry, EntryKind, HistoryRow, LogChunk, LogStream};
pub use installation::{InstallReport, InstallStage, Installation};
pub use lock::{Lock, LockTarget};
pub use machine::{Machine, MachineSpec, UntrustedDisks};
pub use observed::{MachineFacts, Observed, Power};
pub use record::{Images, Kind, Object, Record};
pub use run::{Hold, HoldReason, Run, RunError, RunErrorCode, RunSpec, RunType};
pub use steps::{StepRecord, Steps};
