//! How machines are installed: what an installer needs (settings, handed out once per attempt), what it says (reports,
//! stored before they are answered), and the images there are.
//!
//! Drivers offer settings here while a step runs and look at the reports; the server's boot listener serves machines.

mod control;
mod desk;
mod driver;
mod handing;
mod image;
mod installer;
mod job;
mod reports;
mod settings;
mod token;

pub use control::{Control, Grant};
pub use desk::{Desk, DeskError};
pub use driver::{Installing, installs};
pub use handing::Handover;
pub use image::Image;
pub use installer::{Installer, InstallerOptions};
pub use job::Patience;
#[cfg(test)]
pub(crate) use reports::InMemory;
pub use reports::{Reports, ReportsError, ReportsFut};
pub use settings::{Settings, Task};
pub use token::{TokenKey, TokenKeyError};
