//! A description of the API as JSON over HTTP, in OpenAPI 3.1, made of the descriptors.

use std::collections::BTreeMap;

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
};
use prost_types::method_options::IdempotencyLevel;
use serde_json::{Map, Value, json};

use super::comments::Comments;
use super::pool::pool;

/// The package that is described.
const PACKAGE: &str = "baremetal.v1";

/// The media types of calls, with one answer and with several.
const ONE: &str = "application/json";
const SEVERAL: &str = "application/connect+json";

/// Codes of errors, by the protocol.
const CODES: [&str; 16] = [
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The description; `None` if this build's own descriptors are broken.
pub(crate) fn openapi() -> Option<Value> {
    let pool = pool()?;
    let services: Vec<_> =
        pool.services().filter(|service| service.package_name() == PACKAGE).collect();
    let comments = Comments::of(&services.first()?.parent_file());
    let mut schemas = Schemas { comments: &comments, named: BTreeMap::new() };
    let (mut paths, mut tags) = (Map::new(), Vec::new());
    for service in &services {
        tags.push(json!({"name": service.name(), "description": comments.at(service.path())}));
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            paths.insert(path, item(service, &method, &mut schemas));
        }
    }
    let mut named: Map<String, Value> = schemas.named.into_iter().collect();
    named.extend(errors());
    Some(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bmdemo",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The bare-metal lifecycle API as JSON over HTTP, in the shapes of the Connect protocol. docs/json.md says \
                            how it is called, docs/errors.md what its errors mean.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}, {"certificate": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": named,
            "parameters": parameters(),
            "responses": {
                "Error": {
                    "description": "The call failed. The status of HTTP follows the code.",
                    "content": {ONE: {"schema": reference("Error")}},
                },
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token, where callers prove who they are."},
                "certificate": {"type": "mutualTLS", "description": "A certificate of the client, where callers prove who they are."},
            },
        },
    }))
}

/// What may be done at the path of a method.
fn item(
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    schemas: &mut Schemas<'_>,
) -> Value {
    let (input, output) = (method.input(), method.output());
    let (request, answer) = (schemas.of_message(&input), schemas.of_message(&output));
    let comments = schemas.comments;
    let id = format!("{}_{}", service.name(), method.name());
    let operation = |id: String| {
        json!({
            "operationId": id,
            "tags": [service.name()],
            "summary": comments.first_sentence(method.path()),
            "description": comments.at(method.path()),
        })
    };
    let header = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
    let mut post = operation(id.clone());
    post["parameters"] = json!([header("Timeout"), header("Version")]);
    if method.is_server_streaming() {
        // An envelope has no schema of its own; what is in it has.
        let stream = |message: &MessageDescriptor| {
            json!({
                "type": "string",
                "contentMediaType": "application/octet-stream",
                "description": format!(
                    "Envelopes, each of one byte of flags, four bytes of length and a {} in JSON. The last one of an answer has the \
                     flag 2 and an EndOfStream.",
                    message.name()
                ),
            })
        };
        post["requestBody"] =
            json!({"required": true, "content": {SEVERAL: {"schema": stream(&input)}}});
        post["responses"] = json!({
            "200": {"description": "The stream, which says at its end how it ended.", "content": {SEVERAL: {"schema": stream(&output)}}},
        });
        return json!({"post": post});
    }
    let responses = json!({
        "200": {"description": "The answer.", "content": {ONE: {"schema": answer}}},
        "default": {"$ref": "#/components/responses/Error"},
    });
    post["requestBody"] = json!({"required": true, "content": {ONE: {"schema": request.clone()}}});
    post["responses"] = responses.clone();
    let level = method.method_descriptor_proto().options.as_ref();
    let level = level.map(prost_types::MethodOptions::idempotency_level);
    if level != Some(IdempotencyLevel::NoSideEffects) {
        return json!({"post": post});
    }
    let mut get = operation(format!("{id}_get"));
    get["parameters"] = json!([
        {
            "name": "message", "in": "query", "description": "The request in JSON; the empty one if absent.",
            "content": {ONE: {"schema": request}},
        },
        header("Encoding"), header("Connect"), header("Timeout"),
    ]);
    get["responses"] = responses;
    json!({"get": get, "post": post})
}

fn parameters() -> Value {
    json!({
        "Timeout": {
            "name": "connect-timeout-ms", "in": "header", "description": "The deadline of the call, in milliseconds.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "Version": {
            "name": "connect-protocol-version", "in": "header", "description": "Version of the protocol; not needed.",
            "schema": {"type": "string", "enum": ["1"]},
        },
        "Encoding": {
            "name": "encoding", "in": "query", "description": "How the message is written.",
            "schema": {"type": "string", "enum": ["json", "proto"], "default": "json"},
        },
        "Connect": {
            "name": "connect", "in": "query", "description": "Version of the protocol; not needed.",
            "schema": {"type": "string", "enum": ["v1"]},
        },
    })
}

fn errors() -> [(String, Value); 3] {
    let detail = json!({
        "type": "object",
        "description": "A detail of an error.",
        "required": ["type", "value"],
        "properties": {
            "type": {"type": "string", "description": "Full name of its message, such as google.rpc.ErrorInfo."},
            "value": {"type": "string", "contentEncoding": "base64", "description": "The message, in base64 without padding."},
            "debug": {"type": "object", "description": "The message as JSON, for people."},
        },
    });
    let error = json!({
        "type": "object",
        "description": "Why a call failed.",
        "required": ["code"],
        "properties": {
            "code": {"type": "string", "enum": CODES},
            "message": {"type": "string", "description": "For people."},
            "details": {"type": "array", "items": reference("ErrorDetail")},
        },
    });
    let end = json!({
        "type": "object",
        "description": "How a stream ended.",
        "properties": {
            "error": reference("Error"),
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
    });
    [("Error", error), ("ErrorDetail", detail), ("EndOfStream", end)]
        .map(|(name, schema)| (name.to_owned(), schema))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The schemas of messages and enums, by name.
struct Schemas<'a> {
    comments: &'a Comments,
    named: BTreeMap<String, Value>,
}

impl Schemas<'_> {
    fn of_message(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => {
                return json!({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"});
            }
            "google.protobuf.FieldMask" => {
                return json!({"type": "string", "description": "Paths of fields, with commas between them."});
            }
            _ => {}
        }
        let name = message.name();
        if !self.named.contains_key(name) {
            // Before its fields: a message may be a part of itself.
            self.named.insert(name.to_owned(), Value::Null);
            let fields = message.fields();
            let fields: Map<_, _> =
                fields.map(|field| (field.json_name().to_owned(), self.of_field(&field))).collect();
            let schema = json!({
                "type": "object",
                "description": self.comments.at(message.path()),
                "properties": fields,
                "additionalProperties": false,
            });
            self.named.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    fn of_enum(&mut self, kind: &EnumDescriptor) -> Value {
        let values: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
        let schema = json!({
            "type": "string",
            "description": self.comments.at(kind.path()),
            "enum": values,
        });
        self.named.insert(kind.name().to_owned(), schema);
        reference(kind.name())
    }

    fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        let kind = field.kind();
        let mut schema = match kind.as_message() {
            Some(entry) if field.is_map() => {
                let values = self.of_kind(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": values})
            }
            Some(_) | None if field.is_list() => {
                json!({"type": "array", "items": self.of_kind(&kind)})
            }
            Some(_) | None => self.of_kind(&kind),
        };
        let comment = self.comments.at(field.path());
        if !comment.is_empty() {
            schema["description"] = Value::from(comment);
        }
        schema
    }

    fn of_kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.of_message(message),
            Kind::Enum(kind) => self.of_enum(kind),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "pattern": "^[0-9]{1,20}$"}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_described_and_every_reference_leads_somewhere() {
        let described = openapi().unwrap();
        let paths = described["paths"].as_object().unwrap();
        let methods = crate::api::methods::METHODS;
        assert_eq!(paths.len(), methods.len());
        for method in methods {
            let item = &paths[method.path];
            let post = &item["post"];
            assert!(post["summary"].as_str().is_some_and(|text| text.len() > 10), "{method:?}");
            let may_be_got = !method.is_mutation && !method.is_stream;
            assert_eq!(item.get("get").is_some(), may_be_got, "{method:?}");
            let media = if method.is_stream { SEVERAL } else { ONE };
            assert!(post["responses"]["200"]["content"][media].is_object(), "{method:?}");
        }
        let mut references = Vec::new();
        collect(&described, &mut references);
        assert!(references.len() > 100);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(described.pointer(pointer).is_some_and(Value::is_object), "{reference}");
        }
    }

    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    found.push(reference.clone());
                }
                object.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
}
