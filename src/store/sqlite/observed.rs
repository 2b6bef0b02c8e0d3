//! Facts that probes observed about machines.

use rusqlite::{Connection, params};

use super::error::{corrupt, ms};
use super::row::{first, number, text};
use crate::clock::Timestamp;
use crate::ids::MachineId;
use crate::model::{MachineFacts, Observed, Power};
use crate::store::StoreError;
use crate::store::codec::DecodeError;

/// Stores the observation of a machine, unless it was deleted.
pub(super) fn save(
    conn: &Connection,
    machine: &MachineId,
    observed: &Observed,
) -> rusqlite::Result<()> {
    let Observed { facts, since } = observed;
    let sql = "INSERT OR REPLACE INTO observed
        (machine_id, since, power, firmware, serial, health, power_word, model, macs)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (SELECT 1 FROM machines WHERE id = ?1)";
    conn.prepare_cached(sql)?.execute(params![
        machine.as_str(),
        ms(*since),
        facts.power.as_str(),
        facts.firmware,
        facts.serial,
        facts.health,
        facts.power_word,
        facts.model,
        facts.mac_addresses.join(" ")
    ])?;
    Ok(())
}

/// The latest observation of a machine.
pub(super) fn load(conn: &Connection, id: &MachineId) -> Result<Option<Observed>, StoreError> {
    let sql = "SELECT since, power, firmware, serial, health, power_word, model, macs
        FROM observed WHERE machine_id = ?1";
    first(conn, sql, [id.as_str()], |row| {
        let power = text(row, 1)?;
        let power = Power::parse(power).ok_or_else(|| {
            let error = DecodeError::Unknown { what: "state of power", name: power.to_owned() };
            corrupt("facts of machine", id)(error)
        })?;
        let own = |column| text(row, column).map(ToOwned::to_owned);
        let facts = MachineFacts {
            power,
            firmware: own(2)?,
            serial: own(3)?,
            health: own(4)?,
            power_word: own(5)?,
            model: own(6)?,
            mac_addresses: text(row, 7)?.split_whitespace().map(ToOwned::to_owned).collect(),
        };
        Ok(Observed { facts, since: Timestamp(number(row, 0)?) })
    })
}
