//! `api`: any method of the API by its name

use std::io::Read as _;
use std::pin::pin;

use bytes::Bytes;
use clap::Args;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, Value};

use super::super::error::{Error, Exit};
use super::super::output::sanitized;
use super::super::resolve;
use super::super::session::Session;
use crate::json::{self, Canonical, Comments};
use crate::text::json_escaped;

/// Package of the methods that have short names.
const PACKAGE: &str = "baremetal.v1";

/// Largest message that is read from standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Call any method of the API with JSON, and print its answer as JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a method it lists them. A method with a stream of answers prints one a line, until it ends
or you press Ctrl-C. A call that changes something gets a request id, unless it has one: it is sent
again if the connection breaks, and carried out once.

Examples:
  bmdemo-cli api
  bmdemo-cli api ListMachines '{\"pageSize\": 3, \"filter\": \"phase = READY\"}'
  bmdemo-cli api baremetal.v1.RunService/WatchRuns
  bmdemo-cli api StartRun - < request.json")]
pub(crate) struct ApiArgs {
    /// Method, such as ListMachines or baremetal.v1.MachineService/ListMachines
    #[arg(value_name = "METHOD")]
    method: Option<String>,
    /// Request, as docs/api.md describes it; - reads it from standard input; {} if absent
    #[arg(value_name = "JSON", default_value = "{}")]
    request: String,
}

pub(crate) async fn api(session: &mut Session, args: &ApiArgs) -> Result<Exit, Error> {
    let Some(name) = &args.method else { return list(session) };
    let method = method(name)?;
    let mut message = message(session, &method, &args.request)?;
    let client = session.client().await?;
    if let Some(field) = method.input().get_field_by_name("request_id")
        && !message.has_field(&field)
    {
        message.set_field(&field, Value::String(client.new_request_id()));
    }
    let message = Bytes::from(message.encode_to_vec());
    let path = path(&method)?;
    if !method.is_server_streaming() {
        let answer = client.call_named(&path, message).await?;
        let answer = canonical(&method.output(), answer)?;
        let text = serde_json::to_string_pretty(&answer).map_err(std::io::Error::other)?;
        writeln!(session.ui.out(), "{}", json_escaped(&text))?;
        return Ok(Exit::Ok);
    }
    let mut interrupted = pin!(session.ui.interrupted());
    let opened = client.stream_named(&path, message).await;
    let mut stream = opened.map_err(|status| client.error(status))?;
    loop {
        let answer = tokio::select! {
            biased;
            () = &mut interrupted => return Ok(Exit::Interrupted),
            answer = stream.message() => answer.map_err(|status| client.error(status))?,
        };
        let Some(answer) = answer else { return Ok(Exit::Ok) };
        let answer = canonical(&method.output(), answer)?;
        let text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
        writeln!(session.ui.out(), "{}", json_escaped(&text))?;
        session.ui.flush()?;
    }
}

/// Every method that has a short name, with what it does.
pub(crate) fn methods() -> Vec<(String, String)> {
    let methods = all();
    let Some(first) = methods.first() else { return Vec::new() };
    let comments = Comments::of(&first.parent_file());
    let about = |method: &MethodDescriptor| comments.first_sentence(method.path()).to_owned();
    methods.iter().map(|method| (method.name().to_owned(), about(method))).collect()
}

fn list(session: &mut Session) -> Result<Exit, Error> {
    let methods = methods();
    let columns = methods.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in &methods {
        let line = format!("{name:columns$}  {about}");
        writeln!(session.ui.out(), "{}", line.trim_end())?;
    }
    Ok(Exit::Ok)
}

/// The methods of our own package, in the order of the proto.
fn all() -> Vec<MethodDescriptor> {
    let services = json::pool().into_iter().flat_map(prost_reflect::DescriptorPool::services);
    let own = services.filter(|service| service.package_name() == PACKAGE);
    own.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The method that a name means: its own, or with its service, in any of the forms that other tools print.
fn method(name: &str) -> Result<MethodDescriptor, Error> {
    resolve::check_name("method", name)?;
    let methods = all();
    let asked = name.trim_start_matches('/').replace('/', ".");
    let is_meant = |method: &&MethodDescriptor| {
        let full = method.full_name();
        full == asked || full.strip_suffix(&asked).is_some_and(|before| before.ends_with('.'))
    };
    if let Some(found) = methods.iter().find(is_meant) {
        return Ok(found.clone());
    }
    let word = asked.rsplit('.').next().unwrap_or_default();
    // A method of health, say.
    let foreign = json::pool().into_iter().flat_map(prost_reflect::DescriptorPool::services);
    let mut foreign = foreign.flat_map(|service| service.methods().collect::<Vec<_>>());
    if let Some(found) = foreign.find(|method| method.full_name() == asked) {
        return Ok(found);
    }
    let names = methods.iter().map(MethodDescriptor::name);
    let same = names.clone().find(|known| known.eq_ignore_ascii_case(word));
    let hint = match same.or_else(|| crate::plan::suggest::nearest(word, names)) {
        Some(near) => format!("did you mean {near}?"),
        None => "bmdemo-cli api lists the methods".to_owned(),
    };
    Err(Error::usage(format!("the API has no method {:?}", sanitized(name)), hint))
}

fn path(method: &MethodDescriptor) -> Result<PathAndQuery, Error> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    PathAndQuery::try_from(path).map_err(|error| Error::Answer(error.to_string()))
}

/// The request in a text, or in standard input.
fn message(
    session: &mut Session,
    method: &MethodDescriptor,
    text: &str,
) -> Result<DynamicMessage, Error> {
    let mut read = text.as_bytes().to_vec();
    if text == "-" {
        read.clear();
        session.ui.take_input().take(INPUT_BYTES_MAX).read_to_end(&mut read)?;
    }
    let input = method.input();
    json::read(&input, &read).map_err(|error| {
        Error::usage(
            format!(
                "the request is not one of {}: {}",
                method.name(),
                sanitized(&error.to_string())
            ),
            format!("docs/api.md has the fields of {}", input.name()),
        )
    })
}

fn canonical(descriptor: &MessageDescriptor, bytes: Bytes) -> Result<Canonical, Error> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes);
    let message = message.map_err(|error| {
        Error::Answer(format!("the answer is no {}: {error}", descriptor.name()))
    })?;
    Ok(Canonical::new(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_any_of_its_names() {
        for name in [
            "ListMachines",
            "MachineService/ListMachines",
            "baremetal.v1.MachineService/ListMachines",
            "/baremetal.v1.MachineService/ListMachines",
            "baremetal.v1.MachineService.ListMachines",
        ] {
            assert_eq!(method(name).unwrap().name(), "ListMachines", "{name}");
        }
        assert_eq!(method("grpc.health.v1.Health/Check").unwrap().name(), "Check");
        for (wrong, hint) in [
            ("ListMachine", "did you mean ListMachines?"),
            ("listmachines", "did you mean ListMachines?"),
            ("RunService/StratRun", "did you mean StartRun?"),
            ("Machines", "bmdemo-cli api lists the methods"),
            ("Nothing.of.the.kind", "bmdemo-cli api lists the methods"),
        ] {
            let Err(Error::Usage { hint: said, .. }) = method(wrong) else { panic!("{wrong}") };
            assert!(said.contains(hint), "{wrong}: {said}");
        }
        assert!(method("").is_err());
    }

    #[test]
    fn every_method_says_what_it_does() {
        let methods = methods();
        assert!(methods.len() > 30);
        for (name, about) in methods {
            assert!(about.len() > 10, "{name}: {about}");
        }
    }
}
