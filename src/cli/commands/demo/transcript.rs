//! The transcript of a demo: remarks, command lines, and what they print.

use std::pin::Pin;

use crate::pb;

use super::super::super::error::{Error, Exit};
use super::super::super::output::{Look, Meaning, wrapped};
use super::super::super::session::Session;

/// A remark between commands.
pub(super) fn say(session: &mut Session, text: &str) -> Result<(), Error> {
    let look = session.ui.look;
    let narrow = Look { columns: look.columns.map(|columns| columns.saturating_sub(2)), ..look };
    for line in wrapped(narrow, text, 0).lines() {
        writeln!(session.ui.out(), "{}", look.paint(Meaning::Dim, &format!("# {line}")))?;
    }
    Ok(())
}

/// The result of a command line, as a future.
pub(crate) type Typed<'a> = Pin<Box<dyn Future<Output = Result<Exit, Error>> + 'a>>;

/// Runs command lines as if they had been typed: the tree of commands knows how, and it imports the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carry(pub(crate) for<'a> fn(&'a mut Session, &'a [&'a str]) -> Typed<'a>);

impl Carry {
    /// Prints a command line, runs it, and prints its errors, as if it had been typed.
    pub(super) async fn enter(self, session: &mut Session, words: &[&str]) -> Result<(), Error> {
        let line =
            session.ui.look.paint(Meaning::Strong, &format!("$ bmdemo-cli {}", words.join(" ")));
        writeln!(session.ui.out(), "{line}")?;
        match self.0(session, words).await {
            Ok(_) => {}
            // A refusal is part of the transcript; a lost server ends it.
            Err(error @ Error::Rpc { .. }) => {
                session.report(&error).await;
            }
            Err(error) => return Err(error),
        }
        writeln!(session.ui.out())?;
        session.ui.flush()?;
        Ok(())
    }
}

/// The newest run of a machine.
pub(super) async fn last_run(
    session: &mut Session,
    machine: &str,
) -> Result<Option<pb::Run>, Error> {
    let client = session.client().await?;
    Ok(client.all_runs(&format!("machine_id={machine}"), usize::MAX).await?.pop())
}
