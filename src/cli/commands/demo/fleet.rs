//! `demo --fleet N`: a rack is repaved, some runs fail, and those are retried.

use super::super::super::error::{Error, Exit};
use super::super::super::session::Session;
use super::stage::on_stage;
use super::transcript::{Carry, say};

/// One machine in this many has an attempt that fails and is retried automatically.
const FLAKY: u32 = 4;
/// One machine in this many has a run that fails permanently, once.
const BROKEN: u32 = 9;

/// What goes wrong in the rack.
fn script(count: u32) -> String {
    let mut rules = Vec::new();
    for number in 1..=count {
        let (step, how) = if number % BROKEN == 5 {
            ("join", "fail-permanent")
        } else if number % FLAKY == 2 {
            ("mint-join", "fail")
        } else {
            continue;
        };
        rules.push(format!("machine=machine-{number} step={step} do={how} times=1"));
    }
    rules.join("; ")
}

pub(super) async fn play(session: &mut Session, count: u32, carry: Carry) -> Result<Exit, Error> {
    if session.server_given {
        return Err(Error::usage("--fleet starts its own server", "remove --server"));
    }
    on_stage(session, script(count), async move |session: &mut Session| {
        acts(session, count, carry).await.map(|()| Exit::Ok)
    })
    .await
}

async fn acts(session: &mut Session, count: u32, carry: Carry) -> Result<(), Error> {
    let all = count.to_string();
    say(session, "A rack of machines.")?;
    carry.enter(session, &["import", &all, "--label", "rack=r1"]).await?;
    let remark = match count {
        0..=8 => "Repave it.",
        _ => "Repave it: eight runs at a time; the others wait for a slot.",
    };
    say(session, remark)?;
    carry.enter(session, &["repave", "-l", "rack=r1", "--detach", "--yes"]).await?;
    carry.enter(session, &["top", "-l", "rack=r1", "--until-idle"]).await?;
    say(session, "What needs a person, and why.")?;
    carry.enter(session, &["issues", "-l", "rack=r1"]).await?;
    if script(count).contains("fail-permanent") {
        say(session, "Repeat what failed, from the step that did not succeed.")?;
        carry.enter(session, &["retry", "-l", "rack=r1", "--yes"]).await?;
    }
    say(session, "The whole rack serves.")?;
    carry.enter(session, &["top", "-l", "rack=r1", "--once"]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn a_few_machines_fail() {
        assert_eq!(script(1), "");
        assert_eq!(
            script(5),
            "machine=machine-2 step=mint-join do=fail times=1; machine=machine-5 step=join do=fail-permanent times=1"
        );
    }
}
