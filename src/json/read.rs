//! Reads JSON strictly: what is unknown or given twice is an error, and an error says which field it is about.
//!
//! prost-reflect reads the values. Around the parser that it reads from is one that knows where in the message it is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};

use crate::plan::suggest::nearest;

/// Most objects and lists inside each other: more than any message has.
const DEPTH_MAX: usize = 32;

/// Longest path of a field that an error repeats, in characters.
const FIELD_CHARS_MAX: usize = 200;

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", if .field.is_empty() { String::new() } else { format!("{field}: ") })]
pub(crate) struct JsonError {
    /// The field that it is about, as the text names it; empty for the text as a whole.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// The message that a text is.
///
/// # Errors
/// [`JsonError`] for anything else than the message, as a whole.
pub(crate) fn read(
    descriptor: &MessageDescriptor,
    json: &[u8],
) -> Result<DynamicMessage, JsonError> {
    let track = RefCell::new(Track::of(descriptor));
    let mut parser = serde_json::Deserializer::from_slice(json);
    let strict = Strict { inner: &mut parser, track: &track };
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let read = DynamicMessage::deserialize_with_options(descriptor.clone(), strict, &options)
        .and_then(|message| parser.end().map(|()| message));
    read.map_err(|error| JsonError {
        field: track.borrow().field(),
        problem: error.to_string().replace("expected a map", "expected an object"),
    })
}

/// What a value is the value of.
#[derive(Clone)]
enum Node {
    Message(MessageDescriptor),
    /// A map with values of a kind.
    Map(Kind),
    /// A list of a kind.
    List(Kind),
    /// One without a structure that is known.
    Plain,
}

impl Node {
    fn of_field(field: &FieldDescriptor) -> Self {
        let kind = field.kind();
        match kind.as_message() {
            Some(entry) if field.is_map() => Self::Map(entry.map_entry_value_field().kind()),
            Some(_) | None if field.is_list() => Self::List(kind),
            Some(_) | None => Self::of_kind(&kind),
        }
    }

    fn of_kind(kind: &Kind) -> Self {
        match kind.as_message() {
            // These have a form of their own in JSON.
            Some(message) if message.package_name() == "google.protobuf" => Self::Plain,
            Some(message) => Self::Message(message.clone()),
            None => Self::Plain,
        }
    }
}

/// Where the parser is.
struct Track {
    /// Names and numbers on the way, each with what is there.
    path: Vec<(String, Node)>,
    root: Node,
    /// A name whose value has not been begun.
    pending: Option<String>,
}

impl Track {
    fn of(descriptor: &MessageDescriptor) -> Self {
        let root = Node::of_kind(&Kind::Message(descriptor.clone()));
        Self { path: Vec::new(), root, pending: None }
    }

    fn node(&self) -> &Node {
        self.path.last().map_or(&self.root, |(_, node)| node)
    }

    /// The path to where the parser is, as a text would name it.
    fn field(&self) -> String {
        let mut field = String::new();
        let names = self.path.iter().map(|(name, _)| name).chain(&self.pending);
        for name in names {
            let is_place = name.starts_with('[');
            if !field.is_empty() && !is_place {
                field.push('.');
            }
            // Writing to a String cannot fail.
            let _ = write!(field, "{name}");
        }
        if field.chars().count() > FIELD_CHARS_MAX {
            field = field.chars().take(FIELD_CHARS_MAX).chain("…".chars()).collect();
        }
        field
    }

    fn enter<E: Error>(&mut self, name: String, node: Node) -> Result<(), E> {
        self.path.push((name, node));
        match self.path.len() > DEPTH_MAX {
            true => Err(E::custom("more objects and lists inside each other than any message has")),
            false => Ok(()),
        }
    }

    /// The field of a message that a name means, if this is a message.
    fn known<E: Error>(&self, name: &str) -> Result<Option<FieldDescriptor>, E> {
        let Node::Message(message) = self.node() else { return Ok(None) };
        let by_name = || message.get_field_by_name(name);
        if let Some(field) = message.get_field_by_json_name(name).or_else(by_name) {
            return Ok(Some(field));
        }
        let fields: Vec<_> = message.fields().collect();
        let meant = nearest(name, fields.iter().map(FieldDescriptor::json_name));
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        Err(E::custom(format!("{} has no such field{meant}", message.name())))
    }
}

/// A part of the parser, which keeps the track up to date.
struct Strict<'t, T> {
    inner: T,
    track: &'t RefCell<Track>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Strict { inner: visitor, track: self.track })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Strict { inner: visitor, track: self.track })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.inner.visit_f64(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.inner.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.inner.visit_borrowed_str(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict { inner: deserializer, track: self.track })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(List { inner, track: self.track, next: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Object { inner, track: self.track, given: BTreeSet::new() })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict { inner: deserializer, track: self.track })
    }
}

struct List<'t, A> {
    inner: A,
    track: &'t RefCell<Track>,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for List<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        {
            let mut track = self.track.borrow_mut();
            let node = match track.node() {
                Node::List(kind) => Node::of_kind(kind),
                Node::Message(_) | Node::Map(_) | Node::Plain => Node::Plain,
            };
            track.enter::<A::Error>(format!("[{}]", self.next), node)?;
        }
        self.next += 1;
        let element = self.inner.next_element_seed(Strict { inner: seed, track: self.track })?;
        self.track.borrow_mut().path.pop();
        Ok(element)
    }
}

struct Object<'t, A> {
    inner: A,
    track: &'t RefCell<Track>,
    given: BTreeSet<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Object<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let Some(name) = self.inner.next_key::<String>()? else { return Ok(None) };
        {
            let mut track = self.track.borrow_mut();
            track.pending = Some(name.clone());
            let field = track.known::<A::Error>(&name)?;
            // A field has two names.
            let name = field.map_or_else(|| name.clone(), |field| field.json_name().to_owned());
            if !self.given.insert(name) {
                return Err(A::Error::custom("is given twice"));
            }
        }
        let name: StringDeserializer<A::Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        {
            let mut track = self.track.borrow_mut();
            let name = track.pending.take().unwrap_or_default();
            let node = match track.node() {
                Node::Map(kind) => Node::of_kind(kind),
                Node::Message(_) | Node::List(_) | Node::Plain => {
                    track.known::<A::Error>(&name)?.as_ref().map_or(Node::Plain, Node::of_field)
                }
            };
            track.enter::<A::Error>(name, node)?;
        }
        let value = self.inner.next_value_seed(Strict { inner: seed, track: self.track })?;
        self.track.borrow_mut().path.pop();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Canonical, pool};

    fn message(name: &str) -> MessageDescriptor {
        pool().unwrap().get_message_by_name(name).unwrap()
    }

    fn refused(name: &str, json: &str) -> (String, String) {
        let descriptor = message(&format!("baremetal.v1.{name}"));
        let JsonError { field, problem } = read(&descriptor, json.as_bytes()).unwrap_err();
        (field, problem)
    }

    #[test]
    fn an_error_names_its_field() {
        for (json, field, problem) in [
            ("", "", "EOF while parsing a value"),
            ("[]", "", "invalid type: sequence, expected an object"),
            ("null", "", "invalid type: null, expected an object"),
            ("{} {}", "", "trailing characters"),
            (r#"{"machine": 5}"#, "machine", "invalid type: integer `5`, expected an object"),
            (
                r#"{"machin": {}}"#,
                "machin",
                "RegisterMachineRequest has no such field; did you mean machine?",
            ),
            (
                r#"{"machine": {"spec": {"provider": 7}}}"#,
                "machine.spec.provider",
                "expected a string",
            ),
            (
                r#"{"machine": {"spec": {"macAddresses": ["a", {}]}}}"#,
                "machine.spec.macAddresses[1]",
                "expected a string",
            ),
            (r#"{"machine": {"labels": {"rack": 5}}}"#, "machine.labels.rack", "expected a string"),
            (
                r#"{"machine": {"labels": {"a": "1", "a": "2"}}}"#,
                "machine.labels.a",
                "is given twice",
            ),
            (
                r#"{"machine": {"machineId": "a", "machine_id": "b"}}"#,
                "machine.machine_id",
                "is given twice",
            ),
            (r#"{"machine": {"createdAt": "yesterday"}}"#, "machine.createdAt", ""),
            (
                r#"{"machine": {"status": {"phase": "PHASE_REDY"}}}"#,
                "machine.status.phase",
                "unrecognized enum value",
            ),
            (r#"{"machine": {"machineId": "x}"#, "machine.machineId", "EOF while parsing a string"),
            (r#"{"machine": NaN}"#, "machine", "expected value"),
            (
                r#"{"machine": {"machineId": "\ud800"}}"#,
                "machine.machineId",
                "unexpected end of hex escape",
            ),
        ] {
            let (named, said) = refused("RegisterMachineRequest", json);
            assert_eq!(named, field, "{json}: {said}");
            assert!(said.contains(problem), "{json}: {said}");
        }
        let (field, problem) = refused("ListMachinesRequest", r#"{"pageSize": "1e999"}"#);
        assert_eq!(field, "pageSize", "{problem}");
        let (field, _) = refused("ListMachinesRequest", r#"{"pageSize": 4294967296}"#);
        assert_eq!(field, "pageSize");
    }

    #[test]
    fn what_is_hostile_is_bounded() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            let (field, problem) = refused("ListMachinesRequest", &deep);
            assert!(field.len() < 1000 && problem.len() < 1000, "{problem}");
        }
        let long = format!(r#"{{"{}": 1}}"#, "x".repeat(1_000_000));
        let (field, problem) = refused("ListMachinesRequest", &long);
        assert_eq!(field.chars().count(), FIELD_CHARS_MAX + 1);
        assert!(problem.contains("has no such field"), "{problem}");
        let descriptor = message("baremetal.v1.ListMachinesRequest");
        let error = read(&descriptor, b"{\"filter\": \"\xff\"}").unwrap_err();
        assert_eq!(error.field, "filter");
        // Where the structure is free, its depth is not.
        let descriptor = message("google.rpc.Status");
        let deep = format!(r#"{{"details": [{}]}}"#, r#"{"@type": "x", "value": "#.repeat(60));
        assert!(read(&descriptor, deep.as_bytes()).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = r#"{"pageSize":3,"pageToken":"t","filter":"phase = READY","readMask":"machineId,labels"}"#;
        let descriptor = message("baremetal.v1.ListMachinesRequest");
        let read = read(&descriptor, text.as_bytes()).unwrap();
        let written = serde_json::to_value(Canonical::new(read)).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
