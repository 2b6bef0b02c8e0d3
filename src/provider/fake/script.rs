//! Scripted faults: which call on which machine fails, and how.

mod values;

use std::fmt;
use std::str::FromStr;

use self::values::{any_or_count, count, matches, parse_duration_ms, probability_ppm};

/// Most rules in a script.
pub const RULES_MAX: usize = 1_024;

/// Rules that say what fails. The first rule that matches a call, and has not been used up, decides.
///
/// Rules are separated by line feeds or `;`, and `#` begins a comment. A rule is a list of `key=value`:
///
/// | Key | Value | Default |
/// |---|---|---|
/// | `do` | the fault, see [`Fault`] | required |
/// | `machine` | glob over machine ids (`*`, `?`) | every machine |
/// | `step` | glob over step names and actions | every step |
/// | `attempt` | attempt of the step, from 1, or `*` | every attempt |
/// | `run` | ordinal of the run on that machine, from 1, or `*` | every run |
/// | `call` | `act`, `observe`, `verify`, `stop`, `fence` or `probe` | as the fault needs |
/// | `times` | how often the rule applies | always |
/// | `p` | probability from 0 to 1, drawn from the seed | 1 |
///
/// How often a rule was used is part of the world, and survives the engine. An *act* that only repeats one that the
/// world has, or that is fenced off, uses no rule; nor does one that is not made because its effect is there already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    rules: Vec<Rule>,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `fail`: before any effect; a retry may help.
    Fail,
    /// `fail-permanent`: before any effect; a retry will not help.
    FailPermanent,
    /// `fail-human`: before any effect; a person must look.
    FailHuman,
    /// `fail-late`: the operation is accepted and, at its end, has failed permanently without effect.
    FailLate,
    /// `fail-after`: it takes effect, but the response is lost: the outcome is unknown to the caller.
    FailAfter,
    /// `hang`: the call never returns; the world continues.
    Hang,
    /// `lie`: it is reported done, and the world is unchanged.
    Lie,
    /// `slow:<duration>`: the operation takes that long.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// `busy:<duration>`: before any effect; it asks to be retried after that time.
    Busy {
        /// Milliseconds.
        ms: u64,
    },
    /// `unreachable`: the machine does not answer and the call does not arrive.
    Unreachable,
    /// `flap`: like unreachable, but only every other call, starting with the first.
    Flap,
    /// `unknowable`: an observation is inconclusive.
    Unknowable,
    /// `degraded`: a probe reports reduced capacity.
    Degraded,
    /// `swapped`: a probe finds another machine's hardware, with another serial number and MAC address.
    Swapped,
}

/// A call of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Act,
    Observe,
    Verify,
    Stop,
    Fence,
    Probe,
}

/// What a rule is matched against. Fences and probes belong to no step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) machine: &'a str,
    pub(super) kind: CallKind,
    pub(super) step: Option<Step<'a>>,
}

/// The step that a call belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) name: &'a str,
    pub(super) action: &'a str,
    pub(super) attempt: u32,
    pub(super) run: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Its number and text: under this name the world remembers how often it was used.
    pub(super) name: String,
    pub(super) fault: Fault,
    pub(super) times: Option<u32>,
    /// Probability in millionths.
    pub(super) p_ppm: u32,
    machine: String,
    step: Option<String>,
    attempt: Option<u32>,
    run: Option<u32>,
    call: Option<CallKind>,
}

/// A script cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule} of the fake provider's script: {message}")]
pub struct ScriptError {
    /// Which rule, from 1.
    pub rule: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

const KEYS: &str = "machine, step, attempt, run, call, do, times or p";
const FAULTS: &str = "fail, fail-permanent, fail-human, fail-late, fail-after, hang, lie, \
                      slow:<duration>, busy:<duration>, unreachable, flap, unknowable, degraded or \
                      swapped";

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    /// [`ScriptError`] with the number of the rule and what was expected instead.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let texts = text
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(rule, _comment)| rule))
            .flat_map(|line| line.split(';'))
            .map(str::trim)
            .filter(|rule| !rule.is_empty());
        let mut rules = Vec::new();
        for (index, text) in texts.enumerate() {
            let rule = index + 1;
            if rule > RULES_MAX {
                let message = format!("too many rules: expected at most {RULES_MAX}");
                return Err(ScriptError { rule, message });
            }
            rules.push(parse_rule(rule, text).map_err(|message| ScriptError { rule, message })?);
        }
        Ok(Self { rules })
    }

    /// Whether it has no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules that match a call, in order, used up or not.
    pub(super) fn applying<'a>(&'a self, subject: &Subject<'a>) -> impl Iterator<Item = &'a Rule> {
        let subject = *subject;
        self.rules.iter().filter(move |rule| rule.applies_to(&subject))
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        Self::parse(text)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let text = rule.name.split_once(' ').map_or("", |(_place, text)| text);
            write!(f, "{separator}{text}")?;
        }
        Ok(())
    }
}

impl Rule {
    fn applies_to(&self, subject: &Subject<'_>) -> bool {
        let kind = match self.call {
            Some(kind) => subject.kind == kind,
            None => self.fault.concerns(subject.kind),
        };
        let step = match (&self.step, subject.step) {
            (None, _) => true,
            (Some(glob), Some(step)) => matches(glob, step.name) || matches(glob, step.action),
            (Some(glob), None) => glob == "*",
        };
        let attempt = self
            .attempt
            .is_none_or(|attempt| subject.step.is_some_and(|step| step.attempt == attempt));
        let run = self.run.is_none_or(|run| subject.step.is_some_and(|step| step.run == run));
        kind && step && attempt && run && matches(&self.machine, subject.machine)
    }
}

impl Fault {
    /// Whether it can affect a call, if the rule does not name the call.
    fn concerns(self, kind: CallKind) -> bool {
        match self {
            Self::Fail
            | Self::FailPermanent
            | Self::FailHuman
            | Self::FailLate
            | Self::FailAfter
            | Self::Hang
            | Self::Lie
            | Self::Slow { .. }
            | Self::Busy { .. } => kind == CallKind::Act,
            Self::Unreachable | Self::Flap => true,
            Self::Unknowable => kind == CallKind::Observe,
            Self::Degraded | Self::Swapped => kind == CallKind::Probe,
        }
    }

    /// Whether it can affect a call that the rule names.
    fn can_affect(self, kind: CallKind) -> bool {
        match self {
            // Any call can fail or hang.
            Self::Fail | Self::FailPermanent | Self::FailHuman | Self::Busy { .. } | Self::Hang => {
                true
            }
            Self::FailLate
            | Self::FailAfter
            | Self::Lie
            | Self::Slow { .. }
            | Self::Unreachable
            | Self::Flap
            | Self::Unknowable
            | Self::Degraded
            | Self::Swapped => self.concerns(kind),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "fail" => Self::Fail,
            "fail-permanent" => Self::FailPermanent,
            "fail-human" => Self::FailHuman,
            "fail-late" => Self::FailLate,
            "fail-after" => Self::FailAfter,
            "hang" => Self::Hang,
            "lie" => Self::Lie,
            "unreachable" => Self::Unreachable,
            "flap" => Self::Flap,
            "unknowable" => Self::Unknowable,
            "degraded" => Self::Degraded,
            "swapped" => Self::Swapped,
            _ => {
                let (name, duration) = text.split_once(':').unwrap_or((text, ""));
                let fault: fn(u64) -> Self = match name {
                    "slow" if name != text => |ms| Self::Slow { ms },
                    "busy" if name != text => |ms| Self::Busy { ms },
                    _ => return Err(format!("do={text}: expected {FAULTS}")),
                };
                let ms = parse_duration_ms(duration).ok_or_else(|| {
                    format!(
                        "do={text}: expected a duration after {name}:, such as 500ms, 5s or 1m30s"
                    )
                })?;
                fault(ms)
            }
        })
    }
}

fn parse_rule(number: usize, text: &str) -> Result<Rule, String> {
    let mut values: [Option<&str>; 8] = [None; 8];
    let names = ["machine", "step", "attempt", "run", "call", "do", "times", "p"];
    for pair in text.split_whitespace() {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not key=value: expected {KEYS}"))?;
        let index = names
            .iter()
            .position(|name| *name == key)
            .ok_or_else(|| format!("unknown key {key:?}: expected {KEYS}"))?;
        if value.is_empty() {
            return Err(format!("{key} has no value"));
        }
        if values[index].replace(value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let [machine, step, attempt, run, call, fault, times, p] = values;
    let fault = Fault::parse(fault.ok_or_else(|| format!("do is missing: expected do={FAULTS}"))?)?;
    let call = call.map(CallKind::parse).transpose()?;
    if let Some(call) = call.filter(|call| !fault.can_affect(*call)) {
        return Err(format!("call={}: this fault cannot affect that call", call.as_str()));
    }
    Ok(Rule {
        name: format!("#{number} {}", text.split_whitespace().collect::<Vec<_>>().join(" ")),
        fault,
        times: times.map(|text| count("times", text)).transpose()?,
        p_ppm: p.map_or(Ok(1_000_000), probability_ppm)?,
        machine: machine.unwrap_or("*").to_owned(),
        step: step.map(str::to_owned),
        attempt: any_or_count("attempt", attempt)?,
        run: any_or_count("run", run)?,
        call,
    })
}

impl CallKind {
    const ALL: [Self; 6] =
        [Self::Act, Self::Observe, Self::Verify, Self::Stop, Self::Fence, Self::Probe];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Observe => "observe",
            Self::Verify => "verify",
            Self::Stop => "stop",
            Self::Fence => "fence",
            Self::Probe => "probe",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("call={text}: expected act, observe, verify, stop, fence or probe")
        })
    }
}

#[cfg(test)]
mod tests;
