//! The databases of the tests: one each, in a PostgreSQL of this process.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

pub(crate) use cluster::Cluster;

use super::{Host, PostgresOptions, PostgresStore};
use crate::clock::Clock;

#[path = "../../../tests/it/cluster.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared with the tests of the whole program"
)]
mod cluster;

/// The cluster of this process; `None` without PostgreSQL.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&[])).as_ref()
}

/// How to reach a new, empty database of a cluster.
pub(crate) fn database(cluster: &Cluster, clock: Arc<dyn Clock>) -> PostgresOptions {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let database = format!("test_{}", NUMBER.fetch_add(1, Relaxed));
    cluster.create(&database);
    PostgresOptions {
        host: Host::Unix(cluster.dir().to_owned(), cluster.port()),
        user: cluster::USER.to_owned(),
        database,
        password: None,
        tls: None,
        clock,
        unsafe_no_flush_for_tests: false,
    }
}

/// Opens a store from a test that runs on a runtime of several threads.
pub(crate) fn open(options: PostgresOptions) -> PostgresStore {
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(PostgresStore::open(options)).unwrap()
    })
}
