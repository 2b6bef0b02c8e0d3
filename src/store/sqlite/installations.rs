//! What machines reported about their installations.

use rusqlite::{Connection, params};

use super::error::corrupt;
use super::row::{first, text};
use super::seal;
use crate::ids::MachineId;
use crate::model::Installation;
use crate::store::StoreError;
use crate::store::codec::{decode_installation, encode_installation};

/// Stores the installation of a machine, unless it was deleted.
pub(super) fn save(
    conn: &Connection,
    machine: &MachineId,
    installation: &Installation,
) -> rusqlite::Result<()> {
    let (id, body) = (machine.as_str(), encode_installation(installation));
    let sum = seal::of(&[seal::text(id), seal::text(&body)]);
    let sql = "INSERT OR REPLACE INTO installations (machine_id, body, sum)
        SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM machines WHERE id = ?1)";
    conn.prepare_cached(sql)?.execute(params![id, body, sum]).map(|_| ())
}

/// The latest installation of a machine.
pub(super) fn load(conn: &Connection, id: &MachineId) -> Result<Option<Installation>, StoreError> {
    let sql = "SELECT machine_id, body, sum FROM installations WHERE machine_id = ?1";
    first(conn, sql, [id.as_str()], |row| {
        seal::verify(row, 0..2, 2, corrupt("installation of machine", id))?;
        decode_installation(text(row, 1)?).map_err(corrupt("installation of machine", id))
    })
}
