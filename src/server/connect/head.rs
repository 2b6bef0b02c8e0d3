//! What a request is, by its head.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Version};

use super::catalog::{self, Entry};
use super::query;
use super::shape::{Call, Format, Shape};
use crate::server::checks::HeadRefusal;

/// Where the description of the API is.
const DOCUMENT: &str = "/openapi.json";

/// How a request is to be carried out.
#[derive(Debug, Clone)]
pub(in crate::server) enum Protocol {
    /// As it is.
    Grpc,
    /// As the call that it means.
    Connect(Arc<Call>),
    /// By the description of the API.
    Document,
}

/// What a request is, by its head.
///
/// # Errors
/// [`HeadRefusal`] for what is no call.
pub(in crate::server) fn protocol<B>(request: &Request<B>) -> Result<Protocol, HeadRefusal> {
    let path = request.uri().path();
    let method = catalog::find(path);
    match *request.method() {
        Method::POST => posted(request.headers(), request.version(), path, method),
        Method::GET if path == DOCUMENT => Ok(Protocol::Document),
        Method::GET if method.is_some_and(Entry::may_be_got) => {
            let format = query::format(request.uri().query()).ok_or(HeadRefusal::ContentType)?;
            Ok(Protocol::Connect(Arc::new(Call { format, shape: Shape::Get, method })))
        }
        Method::GET | Method::HEAD if method.is_none() && !is_bidirectional(path) => {
            Err(HeadRefusal::Nothing)
        }
        _ => Err(HeadRefusal::Method),
    }
}

fn posted(
    headers: &HeaderMap,
    version: Version,
    path: &str,
    method: Option<&'static Entry>,
) -> Result<Protocol, HeadRefusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (format, shape) = match essence.as_str() {
        "application/grpc" | "application/grpc+proto" if version < Version::HTTP_2 => {
            return Err(HeadRefusal::Version);
        }
        "application/grpc" | "application/grpc+proto" => return Ok(Protocol::Grpc),
        "application/json" => (Format::Json, Shape::Unary),
        "application/proto" => (Format::Proto, Shape::Unary),
        "application/connect+json" => (Format::Json, Shape::Stream),
        "application/connect+proto" => (Format::Proto, Shape::Stream),
        _ => return Err(HeadRefusal::ContentType),
    };
    let is_taken = match (method, shape) {
        (Some(method), Shape::Stream) => method.is_stream,
        (Some(method), Shape::Unary | Shape::Get) => !method.is_stream,
        (None, Shape::Stream) => format == Format::Proto || !is_bidirectional(path),
        (None, Shape::Unary | Shape::Get) => !is_bidirectional(path),
    };
    let is_utf8 = parts.all(|part| match part.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        Some(_) | None => true,
    });
    match is_taken && (is_utf8 || format == Format::Proto) {
        true => Ok(Protocol::Connect(Arc::new(Call { format, shape, method }))),
        false => Err(HeadRefusal::ContentType),
    }
}

/// Whether requests are streams too. They are so in envelopes that are the same as those of gRPC.
fn is_bidirectional(path: &str) -> bool {
    path.starts_with("/grpc.reflection.")
}
