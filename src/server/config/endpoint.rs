//! Where messages go, as the configuration file says it: for webhooks and notifications.

use std::path::Path;

use crate::outbound::{Fingerprint, Origin, Trust};

/// The parts of a section that say where messages go.
pub(super) struct Endpoint<'a> {
    /// What the section is called.
    pub(super) section: &'a str,
    pub(super) url: Option<&'a str>,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) certificate_sha256: Option<&'a str>,
}

impl Endpoint<'_> {
    /// Origin, path with query, and whose certificate is believed.
    ///
    /// # Errors
    /// What makes no sense, naming the key.
    pub(super) fn read(&self) -> Result<(Origin, String, Trust), String> {
        let key = |of: &str| format!("{}.{of}", self.section);
        let url = self.url.ok_or_else(|| {
            format!(
                "{} is missing: say where messages go, as in \"https://hooks.example.com/bmdemo\"",
                key("url")
            )
        })?;
        let (origin, path) =
            Origin::parse(url).map_err(|error| format!("{} {error}", key("url")))?;
        if path.contains('#') || !path.starts_with('/') {
            return Err(format!(
                "{} must have a path without a '#', as in https://HOST/bmdemo",
                key("url")
            ));
        }
        let trust = match (self.ca_file, self.certificate_sha256) {
            (Some(_), Some(_)) => {
                return Err(format!(
                    "{} and {} contradict each other; remove one of them",
                    key("ca_file"),
                    key("certificate_sha256")
                ));
            }
            (Some(path), None) => Trust::Authorities(path.to_owned()),
            (None, Some(text)) => Trust::Pinned(Fingerprint::parse(text).ok_or_else(|| {
                format!("{} must be 64 hexadecimal digits", key("certificate_sha256"))
            })?),
            (None, None) => Trust::System,
        };
        if let Trust::Authorities(_) = &trust {
            trust.check().map_err(|error| format!("{}: {error}", key("ca_file")))?;
        }
        Ok((origin, path.to_owned(), trust))
    }
}
