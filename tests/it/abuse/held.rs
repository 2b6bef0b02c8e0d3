//! What was tried against the server and never did harm: it must stay so.

use bmdemo::pb;
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::{LIST, Wire, framed, whole};
use crate::support::{Server, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a list, for compression that remembers nothing.
fn head(authority: &str) -> Vec<u8> {
    let pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", LIST),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0x10);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Writes frames until the server closes the connection; how many it took.
async fn until_closed(server: &Server, most: usize, frames: impl Fn(u32) -> Vec<u8>) -> usize {
    let mut stream = server.raw().await;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let drained = tokio::spawn(async move {
        let mut answers = Vec::new();
        read.read_to_end(&mut answers).await.ok();
    });
    for n in 0..most {
        if drained.is_finished()
            || write.write_all(&frames(u32::try_from(n).unwrap())).await.is_err()
        {
            return n;
        }
    }
    within("the server closes the connection", drained).await.unwrap();
    most
}

/// Whether a client of good manners is served.
async fn is_served(server: &Server) {
    let mut wire = Wire::open(server, 65_535).await;
    let head = wire.call(LIST);
    let (_, status) = whole(wire.answer(head, &pb::ListMachinesRequest::default()).await).await;
    assert_eq!(status, "0");
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_only() {
    let server = Server::ephemeral(&[]).await;
    let authority = server.address.to_string();
    let open = |n: u32| frame(1, 4, 2 * n + 1, &head(&authority));
    // Requests that are taken back at once.
    let reset = |n: u32| [open(n), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    until_closed(&server, 20_000, reset).await;
    // Requests that provoke a reset.
    let provoke = |n: u32| [open(n), frame(8, 0, 2 * n + 1, &[0; 4])].concat();
    until_closed(&server, 20_000, provoke).await;
    // Heads that never end.
    let endless = |n: u32| match n {
        0 => frame(1, 0, 1, &head(&authority)),
        _ => frame(9, 0, 1, &[]),
    };
    until_closed(&server, 20_000, endless).await;
    // Data without data.
    let empty = |n: u32| match n {
        0 => open(0),
        _ => frame(0, 0, 1, &[]),
    };
    until_closed(&server, 20_000, empty).await;
    is_served(&server).await;
}

#[tokio::test]
async fn large_and_compressed_messages_are_not_read() {
    let server = Server::ephemeral(&[]).await;
    let mut wire = Wire::open(&server, 65_535).await;
    // 16 MiB are announced, and a little of it sent.
    let head = wire.call(LIST);
    let (response, mut body) = wire.begin(head).await;
    let announced = [&[0, 1, 0, 0, 0][..], &[10; 1000]].concat();
    body.send_data(Bytes::from(announced), false).unwrap();
    let refused = within("an answer", response).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "8");
    // A message that claims to be compressed.
    let head = wire.call(LIST).header("grpc-encoding", "gzip");
    let (response, mut body) = wire.begin(head).await;
    let mut message = framed(&pb::ListMachinesRequest::default()).to_vec();
    message[0] = 1;
    body.send_data(message.into(), true).unwrap();
    let refused = within("an answer", response).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "12");
    is_served(&server).await;
}

#[tokio::test]
async fn a_filter_of_a_megabyte_is_refused() {
    let server = Server::ephemeral(&[]).await;
    let mut wire = Wire::open(&server, 65_535).await;
    for filter in ["(".repeat(5_000), "NOT ".repeat(3_000), "phase = READY OR ".repeat(50_000)] {
        let head = wire.call(LIST);
        let (response, mut body) = wire.begin(head).await;
        let message = framed(&pb::ListMachinesRequest { filter, ..Default::default() });
        // h2 sends as its window allows.
        body.send_data(message, true).unwrap();
        let refused = within("an answer", response).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], "3");
    }
    is_served(&server).await;
}

#[tokio::test]
async fn more_streams_than_there_may_be_are_refused_and_the_rest_is_answered() {
    let server = Server::ephemeral(&[]).await;
    let mut wire = Wire::open(&server, 65_535).await;
    let mut answers = Vec::new();
    for _ in 0..1_000 {
        let head = wire.call(LIST);
        answers.push(wire.send(head, &pb::ListMachinesRequest::default()).await);
    }
    for answer in answers {
        let (_, status) = whole(within("an answer", answer).await.unwrap()).await;
        assert_eq!(status, "0");
    }
}
