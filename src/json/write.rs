//! Writes canonical JSON.

use std::collections::BTreeMap;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, SerializeOptions, Value,
};
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};

/// Serializes as canonical protobuf JSON: lowerCamelCase, defaults left out, 64-bit numbers as strings. Unlike
/// prost-reflect's own, it sorts maps, so that the same message always reads the same.
pub(crate) struct Canonical {
    message: DynamicMessage,
    always: &'static [&'static str],
}

impl Canonical {
    pub(crate) fn new(message: DynamicMessage) -> Self {
        Self { message, always: &[] }
    }

    /// The same, with the fields of these names even where they have their default.
    pub(crate) fn saying(message: DynamicMessage, always: &'static [&'static str]) -> Self {
        Self { message, always }
    }
}

impl Serialize for Canonical {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_message(&self.message, self.always, serializer)
    }
}

fn serialize_message<S: Serializer>(
    message: &DynamicMessage,
    always: &'static [&'static str],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let descriptor = message.descriptor();
    // Timestamps, durations and masks have their own form in JSON.
    if descriptor.package_name() == "google.protobuf" {
        return message.serialize_with_options(serializer, &SerializeOptions::new());
    }
    let mut map = serializer.serialize_map(None)?;
    let is_said =
        |field: &FieldDescriptor| message.has_field(field) || always.contains(&field.name());
    for field in descriptor.fields().filter(is_said) {
        let value = message.get_field(&field);
        let entry = Field { kind: field.kind(), value: &value, always };
        map.serialize_entry(field.json_name(), &entry)?;
    }
    map.end()
}

/// The value of a field, or an element of it.
struct Field<'a> {
    kind: Kind,
    value: &'a Value,
    always: &'static [&'static str],
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let always = self.always;
        match self.value {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(value) => serializer.serialize_i32(*value),
            Value::U32(value) => serializer.serialize_u32(*value),
            Value::I64(value) => serializer.collect_str(value),
            Value::U64(value) => serializer.collect_str(value),
            Value::F32(value) => serializer.serialize_f32(*value),
            Value::F64(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.collect_str(&Base64Display::new(value, &STANDARD)),
            Value::EnumNumber(number) => {
                match self.kind.as_enum().and_then(|kind| kind.get_value(*number)) {
                    Some(value) => serializer.serialize_str(value.name()),
                    None => serializer.serialize_i32(*number),
                }
            }
            Value::Message(message) => serialize_message(message, always, serializer),
            Value::List(items) => serializer.collect_seq(items.iter().map(|value| Field {
                kind: self.kind.clone(),
                value,
                always,
            })),
            Value::Map(entries) => {
                let kind = self.kind.as_message().map(|entry| entry.map_entry_value_field().kind());
                let kind = kind.ok_or_else(|| S::Error::custom("a map without entries"))?;
                let sorted: BTreeMap<String, Field<'_>> = entries
                    .iter()
                    .map(|(key, value)| {
                        (key_text(key), Field { kind: kind.clone(), value, always })
                    })
                    .collect();
                serializer.collect_map(sorted)
            }
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
