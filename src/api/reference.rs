//! `docs/api.md`, generated from the descriptors and their comments, so that the reference cannot differ from what is
//! served.

use std::fmt::Write as _;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};

use super::methods::{METHODS, ObjectKind, Scoping};
use crate::json::{self, Comments};

const FILE: &str = "baremetal/v1/baremetal.proto";

fn reference() -> String {
    let file = json::pool().unwrap().get_file_by_name(FILE).unwrap();
    let comments = Comments::of(&file);
    let mut text = String::from(
        "# API reference\n\n<!-- Generated from the protos by `cargo test`; edit their comments instead. -->\n\n\
         Package `baremetal.v1`. Errors are explained in [errors.md](errors.md). Every method is called over gRPC, and with \
         [JSON over HTTP](json.md), which `/openapi.json` of a server describes:\n\n\
         ```bash\n\
         curl -H 'content-type: application/json' -d '{\"pageSize\": 3}' \
         http://127.0.0.1:50051/baremetal.v1.MachineService/ListMachines\n\
         bmdemo-cli api ListMachines '{\"pageSize\": 3}'\n```\n",
    );
    for service in file.services() {
        describe_service(&mut text, &service, &comments);
    }
    text += "\n# Messages\n";
    for message in file.messages() {
        describe_message(&mut text, &message, &comments);
    }
    text += "\n# Enums\n";
    for kind in file.enums() {
        describe_enum(&mut text, &kind, &comments);
    }
    text
}

fn describe_service(text: &mut String, service: &ServiceDescriptor, comments: &Comments) {
    let path = service.path().to_vec();
    writeln!(text, "\n## {}\n\n{}", service.name(), comments.at(&path)).unwrap();
    for method in service.methods() {
        let (input, output) = (method.input(), method.output());
        let stream = if method.is_server_streaming() { "stream of " } else { "" };
        let (input, output) = (link(input.name()), link(output.name()));
        writeln!(text, "\n### {}\n\n{input} → {stream}{output}", method.name()).unwrap();
        writeln!(text, "\n{}", comments.at(method.path())).unwrap();
        let touches = touches(method.name());
        writeln!(text, "\n{touches}. Role: {}. {}.", role(method.name()), scoping(method.name()))
            .unwrap();
    }
}

/// What a method means to a caller with a scope.
fn scoping(method: &str) -> &'static str {
    let found = METHODS.iter().find(|known| known.name == method).unwrap();
    match found.scoping {
        Scoping::Unspecified | Scoping::None => "A scope does not matter",
        Scoping::Object => "A scope has to have what it names",
        Scoping::Each => "A scope is asked about each of its machines",
        Scoping::Filter => "A scope leaves out the rest",
        Scoping::New => "A scope has to have what it makes",
        Scoping::Fleet => "Not for callers with a scope",
    }
}

/// The least role that may call a method.
fn role(method: &str) -> String {
    let method = METHODS.iter().find(|found| found.name == method).unwrap();
    format!("{:?}", method.role).to_lowercase()
}

/// What a method does, and on what.
fn touches(method: &str) -> String {
    let method = METHODS.iter().find(|found| found.name == method).unwrap();
    let does = if method.is_mutation { "Changes" } else { "Reads" };
    let object = format!("{:?}", method.object).to_lowercase();
    match (method.object, method.id_field) {
        (ObjectKind::Server, _) => format!("{does} the state of the server"),
        (_, "") => format!("{does} {object}s"),
        (_, field) => format!("{does} the {object} that `{field}` names"),
    }
}

fn describe_message(text: &mut String, message: &MessageDescriptor, comments: &Comments) {
    if message.is_map_entry() {
        return;
    }
    writeln!(text, "\n## {}\n\n{}", message.name(), comments.at(message.path())).unwrap();
    if message.fields().len() == 0 {
        return;
    }
    text.push_str("\n| Field | Type | Meaning |\n|---|---|---|\n");
    for field in message.fields() {
        let meaning = comments.at(field.path()).replace('|', "\\|");
        let (name, number, kind) = (field.name(), field.number(), type_of(&field));
        writeln!(text, "| `{name}` = {number} | {kind} | {meaning} |").unwrap();
    }
}

fn describe_enum(text: &mut String, kind: &EnumDescriptor, comments: &Comments) {
    writeln!(text, "\n## {}\n\n{}", kind.name(), comments.at(kind.path())).unwrap();
    text.push_str("\n| Value | Meaning |\n|---|---|\n");
    for value in kind.values() {
        let meaning = comments.at(value.path()).replace('|', "\\|");
        writeln!(text, "| `{}` = {} | {meaning} |", value.name(), value.number()).unwrap();
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind is a scalar, shown by its name"
)]
fn type_of(field: &FieldDescriptor) -> String {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map of {} to {}", type_of(&key), type_of(&value));
    }
    let kind = match field.kind() {
        Kind::Message(message) if message.package_name() == "baremetal.v1" => link(message.name()),
        Kind::Message(message) => format!("`{}`", message.full_name()),
        Kind::Enum(kind) => link(kind.name()),
        scalar => format!("`{scalar:?}`").to_lowercase(),
    };
    match (field.is_list(), field.containing_oneof()) {
        (true, _) => format!("repeated {kind}"),
        (false, Some(oneof)) if oneof.is_synthetic() => format!("optional {kind}"),
        (false, Some(oneof)) => format!("{kind}, one of `{}`", oneof.name()),
        (false, None) => kind,
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

#[test]
fn the_reference_is_what_the_protos_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
    let wanted = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == wanted,
        "docs/api.md is stale: run UPDATE_DOCS=1 cargo test --lib reference"
    );
}

#[test]
fn everything_has_a_comment() {
    let text = reference();
    for (number, line) in text.lines().enumerate() {
        assert!(!line.ends_with("|  |"), "line {}: {line} has no meaning", number + 1);
    }
    assert!(
        text.contains("Starts a run of a plan on a machine"),
        "comments are in the descriptors"
    );
}
