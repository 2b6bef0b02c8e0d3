//! A restart: off, seen to be off, on again, seen to be on.

use std::time::Duration;

use super::power::{Waited, say};
use super::system::{Remote, System};
use super::ticket::Ticket;
use crate::provider::restart::SeenOff;
use crate::provider::{ErrorCode, Logs, ProviderError};

/// Restarts the machine; returns the evidence.
pub(super) async fn restart(
    remote: &Remote,
    ticket: &Ticket,
    is_graceful: bool,
    logs: &Logs,
    seen_off: &SeenOff,
) -> Result<String, ProviderError> {
    let settings = remote.bmc.settings.clone();
    let asking = ticket.asking();
    let system = remote.system(asking).await?;
    if system.power() == "Off" {
        say(logs, "the machine is off already");
    } else {
        let is_down = is_graceful && shut_down(remote, ticket, &system, logs).await?;
        if !is_down {
            let sent = remote.reset(ticket, &system, &["ForceOff"], logs).await?;
            let waited =
                remote.until_power(asking, "Off", settings.power, Duration::ZERO, logs).await?;
            if let Waited::Missed { seen } = waited {
                return Err(remote.missed(asking, sent, "power Off", &seen).await);
            }
        }
    }
    say(logs, "the machine is off");
    // It may come on by itself, from a restart that someone asked for before: then it has been restarted.
    let stays = remote.until_power(asking, "Off", Duration::ZERO, settings.settle, logs).await?;
    seen_off.now();
    let system = remote.system(asking).await?;
    match stays {
        Waited::Missed { .. } if system.power() == "On" => {
            say(logs, "the machine came on by itself");
        }
        Waited::Held | Waited::Missed { .. } => {
            let sent = remote.reset(ticket, &system, &["On", "ForceOn"], logs).await?;
            let waited =
                remote.until_power(asking, "On", settings.power, Duration::ZERO, logs).await?;
            if let Waited::Missed { seen } = waited {
                return Err(remote.missed(asking, sent, "power On", &seen).await);
            }
        }
    }
    say(logs, "the machine is on");
    Ok("power On, after it was seen Off".to_owned())
}

/// Asks the operating system to shut down. `false` if it did not in time, or cannot be asked.
async fn shut_down(
    remote: &Remote,
    ticket: &Ticket,
    system: &System,
    logs: &Logs,
) -> Result<bool, ProviderError> {
    let asking = ticket.asking();
    let asked = remote.reset(ticket, system, &["GracefulShutdown"], logs).await;
    match asked {
        Ok(_) => {}
        Err(error) if error.code == ErrorCode::Unsupported => {
            say(logs, &format!("no graceful shutdown: {error}"));
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let graceful = remote.bmc.settings.graceful;
    let waited = remote.until_power(asking, "Off", graceful, Duration::ZERO, logs).await?;
    if let Waited::Missed { seen } = waited {
        let seconds = graceful.as_secs();
        say(logs, &format!("no shutdown within {seconds} s ({seen}): the power is cut"));
        return Ok(false);
    }
    Ok(true)
}
