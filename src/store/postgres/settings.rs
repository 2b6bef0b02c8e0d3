//! What a database must be for the promises of the store to hold, checked on every connection.

use tokio_postgres::Row;

/// The oldest version that is supported.
const VERSION_MIN: i32 = 150_000;

/// The settings of a server, as far as they matter.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    version: i32,
    version_text: String,
    encoding: String,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    is_standby: bool,
    read_only: String,
}

/// The statement that reads them.
pub(super) const SETTINGS: &str = "SELECT current_setting('server_version_num')::int4,
    current_setting('server_version'), current_setting('server_encoding'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_commit'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only')";

impl Settings {
    /// Those in a row of [`SETTINGS`].
    pub(super) fn of(row: &Row) -> Self {
        Self {
            version: row.get(0),
            version_text: row.get(1),
            encoding: row.get(2),
            fsync: row.get(3),
            full_page_writes: row.get(4),
            synchronous_commit: row.get(5),
            is_standby: row.get(6),
            read_only: row.get(7),
        }
    }

    /// What is wrong with them, and how to repair it.
    pub(super) fn refusal(&self, no_flush: bool) -> Option<String> {
        let Self { version_text, encoding, synchronous_commit, .. } = self;
        if self.version < VERSION_MIN {
            return Some(format!("PostgreSQL {version_text} is too old: use version 15 or newer"));
        }
        if self.is_standby {
            return Some(
                "this PostgreSQL is a standby, which accepts no writes: give the address of the primary".to_owned(),
            );
        }
        if self.read_only == "on" {
            return Some(
                "default_transaction_read_only is on: turn it off for the role and the database of this server"
                    .to_owned(),
            );
        }
        if encoding != "UTF8" {
            return Some(format!(
                "the database has the encoding {encoding}: create one with ENCODING 'UTF8' TEMPLATE template0"
            ));
        }
        let risky = |name: &str, risk: &str| {
            Some(format!(
                "{name} is off: after a crash of its machine PostgreSQL {risk}. Set {name} = on in postgresql.conf and \
                 reload it"
            ))
        };
        if no_flush {
            return None;
        }
        if self.fsync != "on" {
            return risky("fsync", "may have lost what was acknowledged, or be damaged");
        }
        if self.full_page_writes != "on" {
            return risky("full_page_writes", "may be damaged");
        }
        if synchronous_commit == "off" {
            return Some(
                "synchronous_commit is off: a crash would lose what was acknowledged. Turn it on for this role or \
                 database: ALTER DATABASE ... SET synchronous_commit = on"
                    .to_owned(),
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_lose_commits_is_refused_with_the_remedy() {
        let good = Settings {
            version: 150_000,
            version_text: "15.0".to_owned(),
            encoding: "UTF8".to_owned(),
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            is_standby: false,
            read_only: "off".to_owned(),
        };
        assert_eq!(good.refusal(false), None);
        let off = || "off".to_owned();
        let bad = [
            (Settings { version: 149_999, ..good.clone() }, "version 15"),
            (Settings { is_standby: true, ..good.clone() }, "primary"),
            (Settings { read_only: "on".to_owned(), ..good.clone() }, "turn it off"),
            (Settings { encoding: "LATIN1".to_owned(), ..good.clone() }, "ENCODING 'UTF8'"),
            (Settings { fsync: off(), ..good.clone() }, "fsync = on"),
            (Settings { full_page_writes: off(), ..good.clone() }, "full_page_writes = on"),
            (Settings { synchronous_commit: off(), ..good.clone() }, "synchronous_commit = on"),
        ];
        for (settings, remedy) in bad {
            let refusal = settings.refusal(false).expect("refused");
            assert!(refusal.contains(remedy), "{refusal}");
        }
        for kept in ["local", "remote_write", "remote_apply"] {
            let settings = Settings { synchronous_commit: kept.to_owned(), ..good.clone() };
            assert_eq!(settings.refusal(false), None, "{kept}");
        }
        let unsafe_ = Settings { fsync: off(), synchronous_commit: off(), ..good };
        assert_eq!(unsafe_.refusal(true), None);
    }
}
