//! Messages of every kind, made by chance: what is written reads back, and what is damaged is read or refused.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::{Canonical, pool, read};
use crate::clock::{Random as _, SeededRandom};

struct Chance(SeededRandom);

impl Chance {
    fn below(&self, most: u64) -> u64 {
        self.0.next_u64() % most
    }

    fn text(&self) -> String {
        let pieces =
            ["", "a", "machine-1", "\"\\/", "\n\u{7f}", "ä€\u{1f600}", "\u{202e}", "{}", "1e9"];
        (0..self.below(3)).map(|_| pieces[usize::try_from(self.below(9)).unwrap()]).collect()
    }

    fn message(&self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let i64_of = |most: u64| i64::try_from(self.below(most)).unwrap();
        match descriptor.full_name() {
            "google.protobuf.Timestamp" => {
                message.set_field_by_name(
                    "seconds",
                    Value::I64(i64_of(315_000_000_000) - 62_000_000_000),
                );
                let nanos = i32::try_from(self.below(1_000_000_000)).unwrap();
                message.set_field_by_name("nanos", Value::I32(nanos));
            }
            "google.protobuf.Duration" => {
                message.set_field_by_name("seconds", Value::I64(i64_of(315_576_000_000)));
                let nanos = i32::try_from(self.below(1_000_000_000)).unwrap();
                message.set_field_by_name("nanos", Value::I32(nanos));
            }
            "google.protobuf.FieldMask" => {
                let paths =
                    ["machine_id", "status.phase"].map(|path| Value::String(path.to_owned()));
                message.set_field_by_name("paths", Value::List(paths.to_vec()));
            }
            _ => {
                for field in descriptor.fields() {
                    let is_deep = depth == 0 && matches!(field.kind(), Kind::Message(_));
                    if !is_deep && self.below(3) > 0 {
                        let value = self.field(&field, depth);
                        message.set_field(&field, value);
                    }
                }
            }
        }
        message
    }

    fn field(&self, field: &FieldDescriptor, depth: u32) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = entry.map_entry_value_field().kind();
                let count = self.below(4);
                let pair = |_| (MapKey::String(self.text()), self.value(&values, depth));
                Value::Map((0..count).map(pair).collect())
            }
            kind if field.is_list() => {
                Value::List((0..self.below(3)).map(|_| self.value(&kind, depth)).collect())
            }
            kind => self.value(&kind, depth),
        }
    }

    fn value(&self, kind: &Kind, depth: u32) -> Value {
        let any = self.0.next_u64();
        let bytes = any.to_le_bytes();
        match kind {
            Kind::Message(message) => {
                Value::Message(self.message(message, depth.saturating_sub(1)))
            }
            Kind::Enum(kind) => {
                let place = usize::try_from(self.below(kind.values().len() as u64 + 1)).unwrap();
                Value::EnumNumber(kind.values().nth(place).map_or(9_999, |value| value.number()))
            }
            Kind::Bool => Value::Bool(any.is_multiple_of(2)),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(bytes[..usize::try_from(any % 9).unwrap()].to_vec().into()),
            Kind::Int32 => Value::I32(i32::from_le_bytes(bytes[..4].try_into().unwrap())),
            Kind::Uint32 => Value::U32(u32::from_le_bytes(bytes[..4].try_into().unwrap())),
            Kind::Int64 => Value::I64(i64::from_le_bytes(bytes)),
            Kind::Uint64 => Value::U64(any),
            other => panic!("{other:?} is new in the proto: make some"),
        }
    }
}

#[test]
fn every_message_reads_back_and_damage_is_bounded() {
    let chance = Chance(SeededRandom::new(7));
    let file = pool().unwrap().get_file_by_name("baremetal/v1/baremetal.proto").unwrap();
    let kinds: Vec<_> = file.messages().collect();
    assert!(kinds.len() > 80, "{}", kinds.len());
    let (mut refused, mut taken) = (0, 0);
    for descriptor in kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, 20)) {
        let made = chance.message(descriptor, 3);
        // Defaults are gone from it, as from what is read.
        let made = DynamicMessage::decode(descriptor.clone(), &*made.encode_to_vec()).unwrap();
        let mut json = serde_json::to_vec(&Canonical::new(made.clone())).unwrap();
        let back = read(descriptor, &json).unwrap();
        assert_eq!(back, made, "{}", String::from_utf8_lossy(&json));
        let place = usize::try_from(chance.below(json.len() as u64)).unwrap();
        json[place] = json[place].wrapping_add(1 + u8::try_from(chance.below(255)).unwrap());
        match read(descriptor, &json) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        json.truncate(place);
        assert!(read(descriptor, &json).is_err(), "{}", String::from_utf8_lossy(&json));
    }
    assert!(refused > taken, "{refused} refused, {taken} taken");
}
