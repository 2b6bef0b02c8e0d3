//! What one server takes of its peers: every bound on time, streams and bytes of the connections. `docs/security.md` lists
//! them with what happens at each.

use std::time::Duration;

use crate::api::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// Time a peer has for its first byte.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(5);
/// Time a peer has, after its first byte, for the rest of its greeting.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// Time that a peer of HTTP/1.1 has for the head of a request, and for the next one after an answer.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// Most streams of one connection at the same time: 256 runs started and watched over one connection, and room.
pub(super) const STREAMS_MAX: u32 = 1_000;
/// Longest header list, in bytes.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Bytes that a connection of HTTP/1.1 reads or writes at a time: as many as a head may have.
pub(super) const HTTP1_BUFFER_BYTES: usize = HEADER_LIST_BYTES_MAX as usize;
/// A peer that has been silent this long is asked whether it is still there.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And has this long to answer.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams still open when a connection has reached its maximum age get this long to end.
pub(super) const AGE_GRACE: Duration = Duration::from_secs(60);

/// Time that a call has whose client sets no deadline. Streams and WaitRun, which say themselves how long they last, have
/// none.
pub(super) const CALL: Duration = Duration::from_secs(60);
/// Time that a request has to arrive as a whole, from when the server begins to read it.
pub(super) const BODY: Duration = Duration::from_secs(10);
/// Longest request in JSON, in bytes: it says the same as one of protobuf, with more characters.
pub(super) const JSON_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
/// The same of what is kept free for an answer in JSON.
pub(super) const JSON_ANSWER_FACTOR: u64 = 2;

/// A stream whose peer takes nothing of what waits for it for this long is reset.
pub(super) const STALL: Duration = Duration::from_secs(30);
/// An answer is handed over in pieces of at most so many bytes: the largest frame of HTTP/2 without asking the peer.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// Bytes of answers that have not been sent, of one connection and of all.
pub(super) const UNSENT_BYTES_PER_CONNECTION_MAX: u64 = 16 * 1024 * 1024;
pub(super) const UNSENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Least that can be set: answers of the largest size must fit.
pub(super) const UNSENT_BYTES_MIN: u64 = 8 * RESPONSE_BYTES_MAX as u64;
/// Bytes of one connection while an eighth of the whole is taken: one large answer, or many small ones.
pub(super) const UNSENT_BYTES_CROWDED_MAX: u64 = RESPONSE_BYTES_MAX as u64;
/// What a call about one object is taken to answer until it has.
pub(super) const ANSWER_SMALL_BYTES: u64 = 64 * 1024;
/// What a call about several objects is taken to answer until it has.
pub(super) const ANSWER_LARGE_BYTES: u64 = RESPONSE_BYTES_MAX as u64;

/// A connection without a stream for this long is ended, unless the configuration says otherwise.
pub(super) const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// A connection that makes room for another one has this long to learn about it.
pub(super) const LEAVE_GRACE: Duration = Duration::from_secs(1);

/// Watches and followed logs, of all connections: fewer than the engine takes, so that a stream that gives way has left before
/// the next one needs its place, and so that WaitRun finds one.
pub(super) const WATCHES_MAX: usize = 1_900;
/// Mutations of one peer a second; several times what a server carries out on two cores.
pub(super) const MUTATIONS_PER_PEER_PER_S: u64 = 10_000;
/// Bytes of mutations of one peer a second.
pub(super) const WRITTEN_BYTES_PER_PEER_PER_S: u64 = 8 * 1024 * 1024;
/// Least that can be set.
pub(super) const WRITTEN_BYTES_PER_PEER_PER_S_MIN: u64 = 1024;

/// Lists, histories and the like that are read at the same time, by processor: others wait for their turn, connection by
/// connection, so that a client that asks for everything a thousand times delays others by a few of them.
pub(super) const SCANS_PER_PROCESSOR: usize = 1;

/// Calls that wait for room, of all connections; and of one that has more than its part when there are as many.
pub(super) const CALLS_WAITING_MAX: usize = 4_096;
pub(super) const CALLS_WAITING_PER_CONNECTION: usize = 128;
