//! One file a command: its arguments (whose doc comments are the help) and the function that carries it out.

pub(crate) mod author;
pub(crate) mod bulk;
pub(crate) mod complete;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod control;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod dry_run;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod issues;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod plan;
pub(crate) mod recipe;
pub(crate) mod register;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod simulate;
pub(crate) mod start;
pub(crate) mod wait;
pub(crate) mod watch;
