//! A client of HTTP/2 that sends what no client of gRPC would.

use bmdemo::pb;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use prost::bytes::Bytes;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::{Server, within};

/// Paths of methods.
pub(crate) const LIST: &str = "/baremetal.v1.MachineService/ListMachines";
pub(crate) const REGISTER: &str = "/baremetal.v1.MachineService/RegisterMachine";

/// A connection, greeted.
pub(crate) struct Wire {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) authority: String,
}

impl Wire {
    /// Connects, and grants each answer so many bytes before it is read.
    pub(crate) async fn open(server: &Server, window: u32) -> Self {
        Self::over(server.raw().await, window, &server.address.to_string()).await
    }

    /// The same over any stream.
    pub(crate) async fn over<IO>(stream: IO, window: u32, authority: &str) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 24);
        let handshake = builder.handshake::<_, Bytes>(stream);
        let (requests, connection) = within("the server greets", handshake).await.unwrap();
        tokio::spawn(connection);
        Self { requests, authority: authority.to_owned() }
    }

    /// The head of a call as clients of gRPC send it.
    pub(crate) fn call(&self, path: &str) -> http::request::Builder {
        Request::builder()
            .method("POST")
            .uri(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    }

    /// Sends a head; the body is to follow.
    pub(crate) async fn begin(
        &mut self,
        head: http::request::Builder,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let requests = self.requests.clone();
        let mut ready = within("there is room for a stream", requests.ready()).await.unwrap();
        ready.send_request(head.body(()).unwrap(), false).unwrap()
    }

    /// Sends a call with one message as a whole.
    pub(crate) async fn send(
        &mut self,
        head: http::request::Builder,
        message: &impl prost::Message,
    ) -> ResponseFuture {
        let (response, mut body) = self.begin(head).await;
        body.send_data(framed(message), true).unwrap();
        response
    }

    /// The head of the answer to a call with one message.
    pub(crate) async fn answer(
        &mut self,
        head: http::request::Builder,
        message: &impl prost::Message,
    ) -> Response<RecvStream> {
        let response = self.send(head, message).await;
        within("an answer", response).await.unwrap()
    }
}

/// A message as the body of a call.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &bytes].concat().into()
}

/// A request that would change something.
pub(crate) fn registration(machine_id: &str) -> pb::RegisterMachineRequest {
    let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
    let machine =
        pb::Machine { machine_id: machine_id.to_owned(), spec: Some(spec), ..Default::default() };
    pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() }
}

/// The same of a machine of 20 KB.
pub(crate) fn fat(machine_id: &str) -> pb::RegisterMachineRequest {
    let mut request = registration(machine_id);
    if let Some(machine) = &mut request.machine {
        let label = |n: usize| (format!("label-{n:02}-{}", "x".repeat(50)), "v".repeat(256));
        machine.labels = (0..64).map(label).collect();
    }
    request
}

/// What a whole answer says: its messages, and its `grpc-status`.
pub(crate) async fn whole(response: Response<RecvStream>) -> (Bytes, String) {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = within("the answer continues", body.data()).await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        bytes.extend_from_slice(&piece);
    }
    let trailers = within("the answer ends", body.trailers()).await.unwrap().unwrap_or_default();
    let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
    let status = status.map(|status| status.to_str().unwrap().to_owned()).unwrap_or_default();
    (bytes.into(), status)
}
