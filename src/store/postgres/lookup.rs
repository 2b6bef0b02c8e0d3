//! Looks up what a group of batches is checked against: at most one statement of each kind, all sent at once.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::connection::Conn;
use super::error::{failed, uint};
use super::heads::{Found, Wanted};
use super::rows::{cursor_row, machine_id, request_row, run_id, storable};
use crate::ids::{Epoch, MachineId, Revision};
use crate::store::StoreError;
use crate::store::check::{MachineHead, RunHead};

/// Looks up what is wanted. No machine is registered below `floor`.
pub(super) async fn look_up(
    conn: &Conn,
    wanted: &Wanted,
    floor: Epoch,
) -> Result<Found, StoreError> {
    let texts = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>();
    let machines = texts(&mut wanted.machines.iter().map(ToString::to_string));
    let by_mac: HashMap<_, _> = wanted.macs.iter().map(|mac| (storable(mac), mac)).collect();
    let macs = texts(&mut by_mac.keys().map(ToString::to_string));
    let runs = texts(&mut wanted.runs.iter().map(ToString::to_string));
    let owners = texts(&mut wanted.owners.iter().map(ToString::to_string));
    let chunks = texts(&mut wanted.chunks.iter().map(ToString::to_string));
    let by_receiver: HashMap<_, _> =
        wanted.cursors.iter().map(|receiver| (storable(receiver), receiver)).collect();
    let receivers = texts(&mut by_receiver.keys().map(ToString::to_string));
    let scopes: Vec<&[u8]> = wanted.requests.iter().map(|(scope, _)| scope.as_bytes()).collect();
    let requests: Vec<&[u8]> = wanted.requests.iter().map(|(_, id)| id.as_bytes()).collect();

    let of_machines = "SELECT id, ordinal, revision, epoch FROM machines WHERE id = ANY($1)";
    let of_gone = "SELECT id, epoch FROM gone WHERE id = ANY($1)";
    let of_macs = "SELECT a.mac, m.id FROM machine_macs a JOIN machines m ON m.ordinal = a.machine
        WHERE a.mac = ANY($1)";
    let of_runs = "SELECT id, ordinal, revision, active FROM runs WHERE id = ANY($1)";
    let of_owners = "SELECT machine_id, id FROM runs WHERE machine_id = ANY($1) AND active";
    let of_chunks =
        "SELECT r.id, coalesce((SELECT max(l.chunk) + 1 FROM logs l WHERE l.run = r.ordinal), 0)
        FROM runs r WHERE r.id = ANY($1)";
    let of_cursors = "SELECT owner, next, done, receiver FROM cursors WHERE receiver = ANY($1)";
    let of_requests =
        "SELECT r.scope, r.request_id, r.body_digest, r.object_id, r.at, r.revision FROM requests r
        JOIN unnest($1::bytea[], $2::bytea[]) AS w(scope, request_id)
            ON r.request_id = w.request_id AND r.scope = w.scope";
    let (machines, gone, macs, runs, owners, chunks, cursors, requests) = tokio::try_join!(
        some(conn, of_machines, &machines),
        some(conn, of_gone, &machines),
        some(conn, of_macs, &macs),
        some(conn, of_runs, &runs),
        some(conn, of_owners, &owners),
        some(conn, of_chunks, &chunks),
        some(conn, of_cursors, &receivers),
        async {
            if scopes.is_empty() {
                return Ok(Vec::new());
            }
            conn.query(of_requests, &[&scopes, &requests]).await
        },
    )
    .map_err(failed)?;

    let mut found = Found::default();
    // What is not found is known not to be there.
    let is_floored = (floor > Epoch(0)).then_some(floor);
    for id in &wanted.machines {
        found.machines.insert(id.clone(), None);
        found.gone.insert(id.clone(), is_floored);
    }
    found.macs.extend(wanted.macs.iter().map(|mac| (mac.clone(), None)));
    found.runs.extend(wanted.runs.iter().map(|run| (*run, None)));
    found.owners.extend(wanted.owners.iter().map(|machine| (machine.clone(), None)));
    found.chunks.extend(wanted.chunks.iter().map(|run| (*run, None)));
    found.requests.extend(wanted.requests.iter().map(|key| (key.clone(), None)));
    found.cursors.extend(wanted.cursors.iter().map(|receiver| (receiver.clone(), None)));

    for row in &machines {
        let head = MachineHead {
            ordinal: uint(row.get(1)),
            revision: Revision(uint(row.get(2))),
            epoch: Epoch(uint(row.get(3))),
        };
        found.machines.insert(id_of(row, 0)?, Some(head));
    }
    for row in &gone {
        found.gone.insert(id_of(row, 0)?, Some(floor.max(Epoch(uint(row.get(1))))));
    }
    for row in &macs {
        if let Some(mac) = by_mac.get(row.get::<_, &str>(0)) {
            found.macs.insert((*mac).clone(), Some(id_of(row, 1)?));
        }
    }
    for row in &runs {
        let head = RunHead {
            ordinal: uint(row.get(1)),
            revision: Revision(uint(row.get(2))),
            active: row.get(3),
        };
        found.runs.insert(run_id(row.get(0))?, Some(head));
    }
    for row in &owners {
        found.owners.insert(id_of(row, 0)?, Some(run_id(row.get(1))?));
    }
    for row in &chunks {
        found.chunks.insert(run_id(row.get(0))?, Some(uint(row.get(1))));
    }
    for row in &cursors {
        if let Some(receiver) = by_receiver.get(row.get::<_, &str>(3)) {
            found.cursors.insert((*receiver).clone(), Some(cursor_row(row)));
        }
    }
    for row in &requests {
        let request = request_row(row)?;
        let key = (request.scope.clone(), request.request_id.clone());
        found.requests.insert(key, Some(request));
    }
    Ok(found)
}

fn id_of(row: &Row, column: usize) -> Result<MachineId, StoreError> {
    machine_id(row.get(column))
}

/// The rows for some keys; none for no keys.
async fn some(
    conn: &Conn,
    sql: &str,
    keys: &Vec<String>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    conn.query(sql, &[keys]).await
}
