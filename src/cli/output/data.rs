//! Output for programs: canonical protobuf JSON, JSON lines, YAML of the same value, names.

use std::io::{self, Write};

use prost_reflect::DynamicMessage;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::json::{self, Canonical};
use crate::pb;
use crate::text::json_escaped;

use super::text::sanitized;
use super::yaml::Node;

/// What can be printed as data: a message of the API, or what the CLI concludes from several.
pub(crate) trait Record {
    /// Name of a list of these in JSON.
    const LIST: &'static str;
    /// The form that serializes as JSON does.
    type Data: Serialize;
    /// What `-o name` prints.
    fn id(&self) -> &str;
    /// The record for a serializer.
    ///
    /// # Errors
    /// If this build's descriptors are broken.
    fn data(&self) -> io::Result<Self::Data>;
}

macro_rules! records {
    ($($kind:ident, $list:literal, $id:ident;)+) => {
        $(impl Record for pb::$kind {
            const LIST: &'static str = $list;
            type Data = Canonical;
            fn id(&self) -> &str {
                &self.$id
            }
            fn data(&self) -> io::Result<Canonical> {
                dynamic(concat!("baremetal.v1.", stringify!($kind)), self)
            }
        })+
    };
}

records! {
    Machine, "machines", machine_id;
    Run, "runs", run_id;
    Plan, "plans", plan_id;
    HistoryEntry, "entries", kind;
    LogChunk, "chunks", run_id;
    RunEvent, "events", message;
    WhoAmIResponse, "callers", name;
    AuditEntry, "entries", hash;
    AuditHead, "heads", hash;
    Lock, "locks", lock_id;
    VerifyAuditResponse, "results", problem;
}

/// Forms of output for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataForm {
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// One YAML document.
    Yaml,
    /// Ids, one a line.
    Name,
}

/// What is said always: a script must not take an absent field for either answer.
const ALWAYS: &[&str] = &["verified", "holds"];

/// The message of this full name in the proto.
fn dynamic<T: prost::Message>(name: &str, message: &T) -> io::Result<Canonical> {
    let descriptor = json::pool().and_then(|pool| pool.get_message_by_name(name));
    let descriptor =
        descriptor.ok_or_else(|| io::Error::other(format!("{name} has no descriptor")))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(io::Error::other)?;
    Ok(Canonical::saying(message, ALWAYS))
}

/// Serializes as the list response of the API; the list is present even if it is empty.
struct List<D>(&'static str, Vec<D>);

impl<D: Serialize> Serialize for List<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// One record as JSON.
pub(crate) fn json_of<T: Record>(record: &T) -> io::Result<serde_json::Value> {
    serde_json::to_value(record.data()?).map_err(io::Error::other)
}

/// A list of records as JSON, in the form of the API's list response.
pub(crate) fn json_of_list<T: Record>(records: &[T]) -> io::Result<serde_json::Value> {
    let list = List(T::LIST, records.iter().map(Record::data).collect::<io::Result<_>>()?);
    serde_json::to_value(list).map_err(io::Error::other)
}

/// Writes a list of records.
pub(crate) fn write_list<T: Record>(
    out: &mut dyn Write,
    form: DataForm,
    records: &[T],
) -> io::Result<()> {
    match form {
        DataForm::Name | DataForm::Jsonl => {
            records.iter().try_for_each(|record| write_one(out, form, record))
        }
        DataForm::Json | DataForm::Yaml => {
            let list = List(T::LIST, records.iter().map(Record::data).collect::<io::Result<_>>()?);
            write_document(out, form, &list)
        }
    }
}

/// Writes one record.
pub(crate) fn write_one<T: Record>(
    out: &mut dyn Write,
    form: DataForm,
    record: &T,
) -> io::Result<()> {
    match form {
        DataForm::Name => writeln!(out, "{}", sanitized(record.id())),
        DataForm::Json | DataForm::Jsonl | DataForm::Yaml => {
            write_document(out, form, &record.data()?)
        }
    }
}

fn write_document<T: Serialize>(out: &mut dyn Write, form: DataForm, value: &T) -> io::Result<()> {
    match form {
        DataForm::Yaml => {
            let json = serde_json::to_string(value)?;
            let mut yaml = String::new();
            serde_json::from_str::<Node>(&json)?.write_yaml(&mut yaml, 0);
            out.write_all(yaml.as_bytes())
        }
        DataForm::Jsonl => writeln!(out, "{}", json_escaped(&serde_json::to_string(value)?)),
        DataForm::Json | DataForm::Name => {
            writeln!(out, "{}", json_escaped(&serde_json::to_string_pretty(value)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::text::is_hidden;

    fn machine() -> pb::Machine {
        pb::Machine {
            machine_id: "machine-1".to_owned(),
            labels: [("rack", "r1"), ("note", "yes"), ("evil", "\u{1b}[2J\u{9b}\u{202e}")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            spec: Some(pb::MachineSpec {
                provider: "fake".to_owned(),
                mac_addresses: vec!["02:00:00:00:00:01".to_owned(), "02:00:00:00:00:02".to_owned()],
                ..Default::default()
            }),
            status: Some(pb::MachineStatus {
                phase: pb::Phase::Ready.into(),
                conditions: vec![pb::Condition {
                    r#type: pb::ConditionType::Degraded.into(),
                    status: true,
                    last_transition_at: Some(prost_types::Timestamp {
                        seconds: 1_800_000_000,
                        nanos: 5_000_000,
                    }),
                    ..Default::default()
                }],
                epoch: 7,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn written(form: DataForm, records: &[pb::Machine]) -> String {
        let mut out = Vec::new();
        write_list(&mut out, form, records).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form() {
        let forms = [DataForm::Json, DataForm::Jsonl, DataForm::Yaml, DataForm::Name];
        let text: Vec<String> =
            forms.iter().map(|form| written(*form, &[machine(), machine()])).collect();
        assert!(!text.iter().any(|text| text.chars().any(|c| c != '\n' && is_hidden(c))));
        crate::assert_golden!("data_forms", text.join("---\n"));
        assert_eq!(written(DataForm::Json, &[]), "{\n  \"machines\": []\n}\n");
        assert_eq!(written(DataForm::Yaml, &[]), "machines: []\n");
        assert_eq!(written(DataForm::Jsonl, &[]), "");
    }

    #[test]
    fn json_reads_back_as_the_message() {
        fn check<T>(name: &str, record: &T)
        where
            T: Record + prost::Message + Default + PartialEq + fmt::Debug,
        {
            let mut json = Vec::new();
            write_one(&mut json, DataForm::Json, record).unwrap();
            let descriptor = json::pool().unwrap().get_message_by_name(name).unwrap();
            let mut reader = serde_json::Deserializer::from_slice(&json);
            let read = DynamicMessage::deserialize(descriptor, &mut reader).unwrap();
            assert_eq!(read.transcode_to::<T>().unwrap(), *record);
        }
        check("baremetal.v1.Machine", &machine());
        check(
            "baremetal.v1.LogChunk",
            &pb::LogChunk {
                data: b"any \xff bytes\n".to_vec(),
                offset: u64::MAX,
                ..Default::default()
            },
        );
        check(
            "baremetal.v1.Run",
            &pb::Run {
                parameters: [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]
                    .into(),
                steps: vec![pb::StepStatus {
                    expected_duration: Some(prost_types::Duration {
                        seconds: 5,
                        nanos: 500_000_000,
                    }),
                    attempt: -1,
                    ..Default::default()
                }],
                phase: 99,
                ..Default::default()
            },
        );
    }
}
