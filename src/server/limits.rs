//! What one server takes of its peers: every bound on time, streams and bytes of the connections. `docs/security.md` lists
//! them with what happens at each.

use std::time::Duration;

/// Time a peer has for its first byte.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(5);
/// Time a peer has, after its first byte, for the rest of its greeting.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// Most streams of one connection at the same time: 256 runs started and watched over one connection, and room.
pub(super) const STREAMS_MAX: u32 = 1_000;
/// Longest header list, in bytes.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// A peer that has been silent this long is asked whether it is still there.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And has this long to answer.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that go on when a connection has reached its age get this long to end.
pub(super) const AGE_GRACE: Duration = Duration::from_secs(60);

/// Time that a call has whose client sets no deadline. Streams and WaitRun, which say themselves how long they last, have
/// none.
pub(super) const CALL: Duration = Duration::from_secs(60);
/// Time that a request has to arrive as a whole, from when the server begins to read it.
pub(super) const BODY: Duration = Duration::from_secs(10);
