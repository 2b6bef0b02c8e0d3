//! What a machine reports about its installation.
//!
//! Like observed facts it has its own record beside the machine's; unlike them it decides: whether an image is written
//! is what the installer said, never what a BMC answered. Each report is stored before it is answered.

use crate::clock::Timestamp;
use crate::ids::OperationId;

/// How far an installation has got, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstallStage {
    /// The machine fetched its settings, which an attempt hands out once.
    SettingsTaken,
    /// The installer is running on the machine.
    Installing,
    /// The image is on the disk, and its checksum was right; or the disks are erased, if that was asked for.
    Written,
    /// The installer gave up; its message says why.
    Failed,
    /// The installed system has booted from the disk.
    Up,
}

impl InstallStage {
    /// Every value.
    pub const ALL: [Self; 5] =
        [Self::SettingsTaken, Self::Installing, Self::Written, Self::Failed, Self::Up];

    /// Name as stored, and as machines report it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SettingsTaken => "settings-taken",
            Self::Installing => "installing",
            Self::Written => "written",
            Self::Failed => "failed",
            Self::Up => "up",
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// The installation that a machine took part in last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The attempt whose settings the machine fetched; reports carry the token of this attempt.
    pub operation: OperationId,
    /// How far it got.
    pub stage: InstallStage,
    /// SHA-256 of the image that the installer computed, in hexadecimal digits; empty before it is written.
    pub image_sha256: String,
    /// Boot id of the system that reported last: another one at each boot. Empty until a system reports one.
    pub boot_id: String,
    /// The installer's own words, for people.
    pub message: String,
    /// When the last report was stored.
    pub at: Timestamp,
}

/// What a machine says about its installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstallReport {
    /// SHA-256 of the image, if the report is about it.
    pub image_sha256: String,
    /// Boot id of the system that reports.
    pub boot_id: String,
    /// Words for people.
    pub message: String,
}

impl Installation {
    /// The installation that begins when a machine fetches its settings.
    #[must_use]
    pub fn begin(operation: OperationId, at: Timestamp) -> Self {
        Self {
            operation,
            stage: InstallStage::SettingsTaken,
            image_sha256: String::new(),
            boot_id: String::new(),
            message: String::new(),
            at,
        }
    }

    /// The installation after a report; `None` if the report changes nothing, since it repeats an earlier one or comes
    /// too late: an installation that was written or has failed is not written again.
    #[must_use]
    pub fn after(&self, stage: InstallStage, report: InstallReport, at: Timestamp) -> Option<Self> {
        let goes_on = match (self.stage, stage) {
            // A lost answer makes the machine say it again.
            (was, now) if was == now => now == InstallStage::Up && report.boot_id != self.boot_id,
            (InstallStage::Failed, _) | (_, InstallStage::SettingsTaken) => false,
            (InstallStage::Written, InstallStage::Failed) => false,
            (was, now) => now > was,
        };
        goes_on.then(|| Self {
            operation: self.operation.clone(),
            stage,
            image_sha256: match stage {
                InstallStage::Written => report.image_sha256,
                InstallStage::SettingsTaken
                | InstallStage::Installing
                | InstallStage::Failed
                | InstallStage::Up => self.image_sha256.clone(),
            },
            boot_id: report.boot_id,
            message: report.message,
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RunId;

    fn at(stage: InstallStage) -> Installation {
        let run = RunId::new(Timestamp(1), [1, 2]);
        let operation = OperationId::new(run, "repave", 1);
        Installation {
            stage,
            boot_id: "one".to_owned(),
            ..Installation::begin(operation, Timestamp(1))
        }
    }

    fn report(boot_id: &str) -> InstallReport {
        InstallReport {
            image_sha256: "ab".to_owned(),
            boot_id: boot_id.to_owned(),
            message: "said".to_owned(),
        }
    }

    #[test]
    fn names_read_back() {
        for stage in InstallStage::ALL {
            assert_eq!(InstallStage::parse(stage.as_str()), Some(stage));
        }
        assert_eq!(InstallStage::parse("done"), None);
    }

    #[test]
    fn an_installation_goes_forward_only() {
        use InstallStage::{Failed, Installing, SettingsTaken, Up, Written};
        let goes = |from, to| at(from).after(to, report("one"), Timestamp(2)).is_some();
        for (from, to) in [
            (SettingsTaken, Installing),
            (SettingsTaken, Failed),
            (Installing, Written),
            (Installing, Failed),
            // The report before was lost.
            (SettingsTaken, Written),
            (Written, Up),
        ] {
            assert!(goes(from, to), "{from:?} to {to:?}");
        }
        for (from, to) in [
            (Installing, SettingsTaken),
            (Installing, Installing),
            (Written, Installing),
            (Written, Failed),
            (Failed, Written),
            (Failed, Up),
            (Up, Written),
        ] {
            assert!(!goes(from, to), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn each_boot_is_a_report_of_its_own() {
        let up = at(InstallStage::Up);
        assert_eq!(up.after(InstallStage::Up, report("one"), Timestamp(2)), None);
        let again = up.after(InstallStage::Up, report("two"), Timestamp(2)).unwrap();
        assert_eq!((again.boot_id.as_str(), again.at), ("two", Timestamp(2)));
    }

    #[test]
    fn the_checksum_is_that_of_the_written_image() {
        let written = at(InstallStage::Installing)
            .after(InstallStage::Written, report("one"), Timestamp(2))
            .unwrap();
        assert_eq!(written.image_sha256, "ab");
        let up = written
            .after(
                InstallStage::Up,
                InstallReport { image_sha256: "cd".to_owned(), ..report("two") },
                Timestamp(3),
            )
            .unwrap();
        assert_eq!((up.image_sha256.as_str(), up.stage), ("ab", InstallStage::Up));
    }
}
