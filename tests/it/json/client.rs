//! A client of HTTP/1.1 that sends what a test says.

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::abuse::wire::{Wire, whole};
use crate::support::{Server, within};

pub(crate) const JSON: &str = "application/json";
pub(crate) const STREAM: &str = "application/connect+json";

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) fn text(&self, header: &str) -> &str {
        self.headers.get(header).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The reason of a refusal.
    pub(crate) fn reason(&self) -> String {
        reason(&self.json())
    }
}

/// The reason in an error of Connect.
pub(crate) fn reason(error: &Value) -> String {
    let details = error["details"].as_array().unwrap_or_else(|| panic!("{error}"));
    let info = details.iter().find(|one| one["type"] == "google.rpc.ErrorInfo").unwrap();
    info["debug"]["reason"].as_str().unwrap().to_owned()
}

/// A connection of HTTP/1.1, kept alive.
pub(crate) struct Http1 {
    pub(crate) requests: SendRequest<Full<Bytes>>,
    pub(crate) host: String,
}

impl Http1 {
    pub(crate) async fn open(server: &Server) -> Self {
        Self::over(server.raw().await, &server.address.to_string()).await
    }

    /// The same over any stream.
    pub(crate) async fn over<IO>(stream: IO, host: &str) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { requests, host: host.to_owned() }
    }

    /// Sends a request as a whole; the answer has begun.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        within("the connection is ready", self.requests.ready()).await.unwrap();
        within("an answer", self.requests.send_request(request)).await.unwrap()
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.begin(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let body = within("the answer ends", body.collect()).await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Posts JSON.
    pub(crate) async fn call(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, &[("content-type", JSON)], body).await
    }
}

/// Sends a request over HTTP/2.
pub(crate) async fn over_http2(
    wire: &mut Wire,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let uri = format!("http://{}{path}", wire.authority);
    let mut head = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    let (response, mut stream) = wire.begin(head).await;
    stream.send_data(body.into(), true).unwrap();
    let response = within("an answer", response).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let (body, trailers) = whole(response).await;
    assert_eq!(trailers, "", "no status of gRPC");
    Answer { status, headers, body }
}

/// A message in an envelope.
pub(crate) fn enveloped(json: &str) -> Bytes {
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    [&[0][..], &length, json.as_bytes()].concat().into()
}

/// Takes the next envelope out of what was read.
pub(crate) fn opened(read: &mut Vec<u8>) -> Option<(u8, Value)> {
    let (head, rest) = read.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes(head[1..].try_into().unwrap())).unwrap();
    let json = serde_json::from_slice(rest.get(..length)?).unwrap();
    let found = (head[0], json);
    read.drain(..5 + length);
    Some(found)
}

/// The envelopes of an answer as they come.
pub(crate) struct Envelopes {
    pub(crate) body: Incoming,
    read: Vec<u8>,
}

impl Envelopes {
    pub(crate) fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], STREAM);
        Self { body: response.into_body(), read: Vec::new() }
    }

    /// The next envelope; `None` at the end of the body, `Err` if it is cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<(u8, Value)>, hyper::Error> {
        loop {
            if let Some(envelope) = opened(&mut self.read) {
                return Ok(Some(envelope));
            }
            match within("the stream continues", self.body.frame()).await {
                Some(frame) => self.read.extend_from_slice(&frame?.into_data().unwrap()),
                None => return Ok(None),
            }
        }
    }
}
