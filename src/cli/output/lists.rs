//! Columns of plans, histories and the audit, and what a dry run says of machines.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::pb;

use super::columns::{Columned, Content};
use super::data::Record;
use super::text::{effective_name, phase_name, run_type_name};

impl Columned for pb::Plan {
    const COLUMNS: &'static [&'static str] = &[
        "plan_id",
        "name",
        "type",
        "default",
        "risk",
        "phases",
        "steps",
        "parameters",
        "result_phase",
        "digest",
        "description",
    ];
    const ALIASES: &'static [&'static str] = &["plan", "display"];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let text = |text: &str| Content::Text(text.to_owned());
        Some(match column {
            "plan_id" | "plan" => text(&self.plan_id),
            "name" | "display" => text(&self.display_name),
            "type" => Content::Text(run_type_name(self.run_type)),
            "default" => Content::Mark(Some(self.is_default)),
            "risk" => {
                let name = self.risk().as_str_name();
                text(name.strip_prefix("RISK_").unwrap_or(name))
            }
            "phases" => {
                let phases = self.allowed_phases.iter().map(|phase| phase_name(*phase));
                Content::Text(phases.collect::<Vec<_>>().join(" "))
            }
            "steps" => {
                let steps = self.steps.iter().map(|step| step.name.as_str());
                Content::Text(steps.collect::<Vec<_>>().join(" "))
            }
            "parameters" => {
                let names = self.parameters.iter().map(|parameter| parameter.name.as_str());
                Content::Text(names.collect::<Vec<_>>().join(" "))
            }
            "result_phase" if self.result_phase == 0 => text(""),
            "result_phase" => Content::Text(phase_name(self.result_phase)),
            "digest" => text(&self.digest),
            "description" => text(&self.description),
            _ => return None,
        })
    }
}

impl Columned for pb::HistoryEntry {
    const COLUMNS: &'static [&'static str] = &[
        "at",
        "machine_id",
        "run_id",
        "kind",
        "step",
        "from",
        "to",
        "message",
        "reason",
        "actor",
        "actor_kind",
        "verified",
        "revision",
    ];
    const ALIASES: &'static [&'static str] = &["machine", "run"];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let text = |text: &str| Content::Text(text.to_owned());
        let actor = self.actor.as_ref();
        Some(match column {
            "at" => Content::Time(self.at),
            "machine_id" | "machine" => text(&self.machine_id),
            "run_id" | "run" => Content::Run(self.run_id.clone()),
            "kind" => text(&self.kind),
            "step" => text(&self.step),
            "from" => text(&self.from),
            "to" => text(&self.to),
            "message" => text(&self.message),
            "reason" => text(&self.reason),
            "actor" => text(actor.map_or("", |actor| &actor.name)),
            "actor_kind" => text(actor.map_or("", |actor| &actor.kind)),
            "verified" => Content::Mark(actor.map(|actor| actor.verified)),
            "revision" => Content::Text(self.revision.to_string()),
            _ => return None,
        })
    }
}

impl Columned for pb::AuditEntry {
    const COLUMNS: &'static [&'static str] = &[
        "seq",
        "at",
        "decision",
        "principal",
        "verified",
        "proof",
        "peer",
        "rpc",
        "objects",
        "reason",
        "calls",
        "request_id",
        "plan_digest",
        "body_digest",
        "revision",
        "hash",
    ];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let text = |text: &str| Content::Text(text.to_owned());
        Some(match column {
            "seq" => Content::Text(self.seq.to_string()),
            "at" => Content::Time(self.at),
            "decision" => text(&self.decision),
            "principal" => text(&self.principal),
            "verified" => Content::Mark(Some(self.verified)),
            "proof" => text(&self.proof),
            "peer" => text(&self.peer),
            "rpc" => text(&self.rpc),
            "objects" => Content::Text(self.objects.join(" ")),
            "reason" => text(&self.reason),
            "calls" => Content::Text(self.calls.to_string()),
            "request_id" => text(&self.request_id),
            "plan_digest" => text(&self.plan_digest),
            "body_digest" => text(&self.body_digest),
            "revision" => Content::Text(self.revision.to_string()),
            "hash" => text(&self.hash),
            _ => return None,
        })
    }
}

/// What a dry run says of one machine, as JSON has it: named as in the API, what is empty left out.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    pub(crate) machine_id: String,
    pub(crate) plan_id: String,
    pub(crate) plan_digest: String,
    /// Whether a run would start.
    pub(crate) accepted: bool,
    /// Why not: the word that the server refuses with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) hint: String,
    /// The refusal that --force overrides.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) overrides: String,
    pub(crate) phase: &'static str,
    /// The phase after a run that succeeds.
    pub(crate) phase_after: &'static str,
    pub(crate) effective_state: &'static str,
    pub(crate) etag: String,
    /// Steps whose guards do not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) skipped_steps: Vec<String>,
    /// The values used.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Record for Verdict {
    const LIST: &'static str = "verdicts";
    type Data = Self;

    fn id(&self) -> &str {
        &self.machine_id
    }

    fn data(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl Columned for Verdict {
    const COLUMNS: &'static [&'static str] = &[
        "machine_id",
        "plan_id",
        "accepted",
        "reason",
        "message",
        "hint",
        "overrides",
        "phase",
        "phase_after",
        "effective",
        "skipped_steps",
        "etag",
        "plan_digest",
    ];
    const ALIASES: &'static [&'static str] = &["id", "machine", "plan"];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let text = |text: &str| Content::Text(text.to_owned());
        let phase = |name: &str| pb::Phase::from_str_name(name).unwrap_or_default().into();
        Some(match column {
            "machine_id" | "id" | "machine" => text(&self.machine_id),
            "plan_id" | "plan" => text(&self.plan_id),
            "accepted" => Content::Mark(Some(self.accepted)),
            "reason" => text(&self.reason),
            "message" => text(&self.message),
            "hint" => text(&self.hint),
            "overrides" => text(&self.overrides),
            "phase" => Content::Text(phase_name(phase(self.phase))),
            "phase_after" => Content::Text(phase_name(phase(self.phase_after))),
            "effective" => {
                let state = pb::EffectiveState::from_str_name(self.effective_state);
                Content::Text(effective_name(state.unwrap_or_default().into()))
            }
            "skipped_steps" => Content::Text(self.skipped_steps.join(" ")),
            "etag" => text(&self.etag),
            "plan_digest" => text(&self.plan_digest),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::{write_csv_header, write_csv_rows};
    use super::*;

    fn csv<T: Columned>(record: T) -> String {
        let mut out = Vec::new();
        write_csv_header::<T>(&mut out, &[]).unwrap();
        write_csv_rows(&mut out, &[record], &[], 0).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_list_has_its_columns_as_csv() {
        let entry = pb::HistoryEntry {
            machine_id: "machine-1".to_owned(),
            kind: "phase.changed".to_owned(),
            from: "READY".to_owned(),
            to: "RMA".to_owned(),
            message: "fan, loud".to_owned(),
            actor: Some(pb::Actor { name: "ann".to_owned(), ..Default::default() }),
            revision: 7,
            ..Default::default()
        };
        assert_eq!(
            csv(entry),
            "at,machine_id,run_id,kind,step,from,to,message,reason,actor,actor_kind,verified,revision\n\
             ,machine-1,,phase.changed,,READY,RMA,\"fan, loud\",,ann,,false,7\n"
        );
        let plan = pb::Plan {
            plan_id: "plan/rma".to_owned(),
            run_type: pb::RunType::Rma.into(),
            is_default: true,
            risk: pb::Risk::DataDestroying.into(),
            steps: vec![pb::PlanStep { name: "wipe".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let text = csv(plan);
        assert!(text.ends_with("plan/rma,,RMA,true,DATA_DESTROYING,,wipe,,,,\n"), "{text}");
        let audit = pb::AuditEntry { seq: 3, decision: "denied".to_owned(), ..Default::default() };
        assert!(csv(audit).contains("\n3,,denied,,false,"));
        let phase = pb::Phase::Ready.as_str_name();
        let verdict = Verdict { accepted: true, phase, ..Verdict::default() };
        assert!(csv(verdict).contains("\n,,true,,,,,READY,"));
    }

    #[test]
    fn every_column_has_a_content() {
        fn check<T: Columned + Default>() {
            let record = T::default();
            for column in T::COLUMNS.iter().chain(T::ALIASES) {
                assert!(record.content(column, 0).is_some(), "{column}");
            }
        }
        check::<pb::Plan>();
        check::<pb::HistoryEntry>();
        check::<pb::AuditEntry>();
        check::<Verdict>();
    }
}
