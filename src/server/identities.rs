//! Who may call: the principals of the configuration, and by what each of them is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{ConfigError, PrincipalSettings, RoleName};
use crate::api::validate::wrong_label_key;
use crate::model::scope::Scope;
use crate::pb::Role;
use crate::text::{escaped, hidden_in};

/// Longest name of a principal, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Names that would be taken for a part of the server, or for an unknown caller.
const RESERVED: [&str; 6] = ["anonymous", "engine", "probe", "system", "local", "unverified"];
/// What the URI of a certificate of our own begins with; the name of the principal follows.
pub(super) const OWN_SCHEME: &str = "bmdemo://";

/// Someone who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// Name, in the history and in the log.
    pub(super) name: Arc<str>,
    /// What it may do.
    pub(super) role: Role,
    /// The only machines that it may see and touch, and their runs; all of them if there is none.
    pub(super) scope: Option<Arc<Scope>>,
}

/// Every principal, and by what each is known.
#[derive(Debug, Default)]
pub(super) struct Identities {
    by_name: BTreeMap<String, Arc<Principal>>,
    by_certificate: BTreeMap<String, Arc<Principal>>,
    by_subject: BTreeMap<String, Arc<Principal>>,
}

impl Identities {
    /// The principals of a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] for a name that cannot be one, and for an identity that two of them have.
    pub(super) fn new(settings: &BTreeMap<String, PrincipalSettings>) -> Result<Self, ConfigError> {
        let mut by_name = BTreeMap::new();
        let mut by_certificate: BTreeMap<String, Arc<Principal>> = BTreeMap::new();
        let mut by_subject: BTreeMap<String, Arc<Principal>> = BTreeMap::new();
        for (name, settings) in settings {
            check_name(name).map_err(ConfigError::Setting)?;
            let scope = match &settings.scope {
                Some(text) => Some(Arc::new(scope(name, text).map_err(ConfigError::Setting)?)),
                None => None,
            };
            let role = role(settings.role);
            let principal = Arc::new(Principal { name: name.as_str().into(), role, scope });
            by_name.insert(name.clone(), principal.clone());
            for subject in &settings.subjects {
                if subject.is_empty() || hidden_in(subject).is_some() {
                    return Err(ConfigError::Setting(format!(
                        "principals.{name}.subjects: \"{}\" is empty, or has an invisible character",
                        escaped(subject)
                    )));
                }
                if let Some(other) = by_subject.insert(subject.clone(), principal.clone())
                    && other.name != principal.name
                {
                    return Err(ConfigError::Setting(format!(
                        "principals.{name}.subjects: \"{subject}\" is one of {} too: a subject is one principal",
                        other.name
                    )));
                }
            }
            let own = format!("{OWN_SCHEME}{name}");
            for identity in settings.certificates.iter().chain([&own]) {
                check_identity(name, identity).map_err(ConfigError::Setting)?;
                if let Some(other) = by_certificate.insert(identity.clone(), principal.clone())
                    && other.name != principal.name
                {
                    return Err(ConfigError::Setting(format!(
                        "principals.{name}.certificates: \"{}\" is one of {} too: an identity belongs to one principal",
                        escaped(identity),
                        other.name
                    )));
                }
            }
        }
        Ok(Self { by_name, by_certificate, by_subject })
    }

    /// The principal of this name.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Principal>> {
        self.by_name.get(name).cloned()
    }

    /// The principal of whom the tokens of the issuer speak so.
    pub(super) fn of_subject(&self, subject: &str) -> Option<Arc<Principal>> {
        self.by_subject.get(subject).cloned()
    }

    /// The principal with this identity in its certificate.
    pub(super) fn of_certificate(&self, identity: &str) -> Option<Arc<Principal>> {
        self.by_certificate.get(identity).cloned()
    }
}

/// The scope of a principal, which every label can meet that it names.
fn scope(name: &str, text: &str) -> Result<Scope, String> {
    let refused = |why: &str| format!("principals.{name}.scope: {why}");
    let scope = Scope::parse(text).map_err(|why| refused(&why))?;
    match scope.keys().iter().find_map(|key| Some((key, wrong_label_key(key)?))) {
        Some((key, why)) => {
            Err(refused(&format!("\"{}\" is the key of no label: {why}", escaped(key))))
        }
        None => Ok(scope),
    }
}

const fn role(role: RoleName) -> Role {
    match role {
        RoleName::Viewer => Role::Viewer,
        RoleName::Operator => Role::Operator,
        RoleName::Admin => Role::Admin,
    }
}

/// Names go into the history, the log and URIs: they are plain.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !name.chars().all(plain) || name.chars().count() > NAME_CHARS_MAX {
        return Err(format!(
            "principals.{} cannot be a name: give 1 to {NAME_CHARS_MAX} letters, digits, - . _ or @, a letter or digit first",
            escaped(name)
        ));
    }
    match RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        true => Err(format!("principals.{name}: the name is reserved; give another one")),
        false => Ok(()),
    }
}

fn check_identity(name: &str, identity: &str) -> Result<(), String> {
    let refused = |why: &str| {
        let identity = escaped(identity);
        Err(format!("principals.{name}.certificates: \"{identity}\" {why}"))
    };
    if hidden_in(identity).is_some() {
        return refused("has an invisible character: leave it out");
    }
    if let Some(common) = identity.strip_prefix("CN=") {
        return match common.is_empty() {
            true => refused("names no one: give the common name after CN="),
            false => Ok(()),
        };
    }
    if let Some(other) = identity.strip_prefix(OWN_SCHEME) {
        return match other == name {
            true => Ok(()),
            false => refused("is the identity of another principal"),
        };
    }
    match identity.strip_prefix("spiffe://") {
        Some(rest)
            if rest
                .split_once('/')
                .is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty()) =>
        {
            Ok(())
        }
        Some(_) | None => {
            refused("is no identity: give spiffe://DOMAIN/PATH, or CN=NAME for a common name")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(principals: &[(&str, &[&str])]) -> Result<Identities, String> {
        let settings = principals.iter().map(|(name, certificates)| {
            let certificates = certificates.iter().map(|&text| text.to_owned()).collect();
            ((*name).to_owned(), {
                let (role, subjects) = (RoleName::Viewer, Vec::new());
                PrincipalSettings { role, scope: None, certificates, subjects }
            })
        });
        Identities::new(&settings.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_principal_is_known_by_its_certificates() {
        let known =
            identities(&[("ann", &["spiffe://lab/ann", "CN=Ann B"]), ("bob", &[])]).unwrap();
        let of = |text: &str| known.of_certificate(text).map(|found| found.name.to_string());
        for identity in ["bmdemo://ann", "spiffe://lab/ann", "CN=Ann B"] {
            assert_eq!(of(identity).as_deref(), Some("ann"), "{identity}");
        }
        assert_eq!(of("bmdemo://bob").as_deref(), Some("bob"));
        for unknown in
            ["bmdemo://carl", "ann", "CN=ann", "CN=bmdemo://ann", "spiffe://lab/ann/x", ""]
        {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_scope_is_a_label_selector() {
        let with = |scope: &str| {
            let settings = PrincipalSettings {
                role: RoleName::Operator,
                scope: Some(scope.to_owned()),
                certificates: Vec::new(),
                subjects: Vec::new(),
            };
            let known = Identities::new(&[("ann".to_owned(), settings)].into());
            known.map(|known| known.named("ann").unwrap()).map_err(|error| error.to_string())
        };
        let ann = with("rack=r5, tenant in (a,b)").unwrap();
        assert_eq!(ann.scope.as_ref().unwrap().to_string(), "rack=r5, tenant in (a,b)");
        for (wrong, why) in [
            ("", "the label selector is empty"),
            ("rack r5", "\"rack r5\" is not a term of a label selector"),
            ("rack=r5,zone within (a)", "key notin (a,b)"),
            ("-rack=r5", "is the key of no label"),
        ] {
            let error = with(wrong).unwrap_err();
            assert!(error.contains("principals.ann.scope") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn principals_that_cannot_be_are_refused() {
        let long = "x".repeat(65);
        for (principals, why) in [
            (&[("Engine", &[][..])][..], "reserved"),
            (&[("anonymous", &[])], "reserved"),
            (&[("", &[])], "cannot be a name"),
            (&[("a] [by b", &[])], "cannot be a name"),
            (&[("-a", &[])], "cannot be a name"),
            (&[(&long, &[])], "cannot be a name"),
            (&[("a", &["CN="])], "names no one"),
            (&[("a", &["bmdemo://b"])], "another principal"),
            (&[("a", &["spiffe://lab"])], "is no identity"),
            (&[("a", &["ann"])], "is no identity"),
            (&[("a", &["CN=x\u{202e}y"])], "invisible"),
            (&[("a", &["CN=x"]), ("b", &["CN=x"])], "is one of a too"),
        ] {
            let error = identities(principals).unwrap_err();
            assert!(error.contains(why), "{principals:?}: {error}");
        }
    }
}
