//! YAML of a JSON value: block style, every text quoted that a reader could take for something else.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::text::json_escaped;

/// A JSON value whose objects keep the order of their fields.
#[derive(Debug)]
pub(super) enum Node {
    /// Null, a boolean or a number, as written.
    Bare(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Writes block YAML. `indent` is that of the lines that follow the first.
    pub(super) fn write_yaml(&self, yaml: &mut String, indent: usize) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        yaml.extend(std::iter::repeat_n(' ', indent));
                    }
                    yaml.push_str(&yaml_text(key));
                    yaml.push(':');
                    value.write_value(yaml, indent);
                }
            }
            Self::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        yaml.extend(std::iter::repeat_n(' ', indent));
                    }
                    yaml.push_str("- ");
                    item.write_yaml(yaml, indent + 2);
                }
            }
            Self::Map(_) => yaml.push_str("{}\n"),
            Self::List(_) => yaml.push_str("[]\n"),
            Self::Bare(text) => yaml.push_str(&format!("{text}\n")),
            Self::Text(text) => yaml.push_str(&format!("{}\n", yaml_text(text))),
        }
    }

    /// Writes what follows `key:`.
    fn write_value(&self, yaml: &mut String, indent: usize) {
        let (block, deeper) = match self {
            Self::Map(entries) => (!entries.is_empty(), indent + 2),
            Self::List(items) => (!items.is_empty(), indent),
            Self::Bare(_) | Self::Text(_) => (false, indent),
        };
        if block {
            yaml.push('\n');
            yaml.extend(std::iter::repeat_n(' ', deeper));
        } else {
            yaml.push(' ');
        }
        self.write_yaml(yaml, deeper);
    }
}

/// A string as YAML: bare if no reader could take it for another type, else quoted as in JSON.
fn yaml_text(text: &str) -> String {
    let plain =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"]
                .contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { json_escaped(&serde_json::Value::from(text).to_string()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Bare("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bare(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Bare(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Bare(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Bare(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_yaml_would_take_for_something_else_are_quoted() {
        for text in ["machine-1", "plan/rma", "READY", "a.b_c"] {
            assert_eq!(yaml_text(text), text);
        }
        for text in [
            "",
            "yes",
            "No",
            "null",
            "1",
            "1e3",
            "0x1f",
            "2027-01-15",
            "a: b",
            "- a",
            "~",
            "a b",
            ".5",
        ] {
            assert_eq!(yaml_text(text), format!("\"{text}\""));
        }
        assert_eq!(yaml_text("a\"\n"), "\"a\\\"\\n\"");
    }
}
