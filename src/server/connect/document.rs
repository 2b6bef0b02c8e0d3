//! The description of the API.

use std::sync::LazyLock;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::Bytes;

use super::shape::{Call, Format, Shape};
use crate::json;

/// The description of the API.
pub(in crate::server) fn document() -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(&json::openapi()).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The same as an answer.
pub(in crate::server) fn described() -> Response<Body> {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document().into());
    let mut response = Response::new(Body::new(Full::new(TEXT.clone())));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// What refuses a request that is no call, in the terms of one.
pub(in crate::server) fn refused(status: tonic::Status) -> Response<Body> {
    let call = Call { format: Format::Json, shape: Shape::Get, method: None };
    call.refused(status.into_http())
}
