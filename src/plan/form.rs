//! What the texts of some arguments must look like, so that a mistake is found before a machine is touched.

/// Form of a text. An empty text fits all but one: it says nothing, as if the argument were not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Any,
    /// Any text but an empty one.
    Filled,
    /// Where to install.
    Disk,
    /// Name of a host.
    HostName,
    /// A public key, as a line of an `authorized_keys` file.
    SshKey,
}

impl Form {
    /// What fits, for messages.
    pub const fn wanted(self) -> &'static str {
        match self {
            Self::Any => "a text",
            Self::Filled => "a text that is not empty",
            Self::Disk => "smallest, a path such as /dev/sda, or serial:NUMBER",
            Self::HostName => {
                "a host name: labels of letters, digits and -, at most 63 characters each, with dots between them"
            }
            Self::SshKey => {
                "a public key, as a line of authorized_keys without options, such as ssh-ed25519 AAAA… name"
            }
        }
    }

    /// Whether a text fits.
    pub fn accepts(self, text: &str) -> bool {
        if text.is_empty() {
            return self != Self::Filled;
        }
        match self {
            Self::Any | Self::Filled => true,
            Self::Disk => {
                let named =
                    |prefix| text.strip_prefix(prefix).is_some_and(|rest: &str| !rest.is_empty());
                let is_plain = text.chars().all(|c| c.is_ascii_graphic());
                is_plain && (text == "smallest" || named("/dev/") || named("serial:"))
            }
            Self::HostName => {
                let label = |label: &str| {
                    let inner = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                    let is_plain = !label.starts_with('-') && !label.ends_with('-');
                    inner && is_plain && (1..=63).contains(&label.len())
                };
                text.len() <= 253 && text.split('.').all(label)
            }
            Self::SshKey => {
                let mut words = text.split(' ');
                let (kind, key) = (words.next().unwrap_or_default(), words.next());
                let is_kind = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
                let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
                is_kind && key.is_some_and(|key| !key.is_empty() && key.chars().all(base64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_form() {
        let long = "a".repeat(64);
        for (form, good, bad) in [
            (
                Form::Disk,
                ["smallest", "/dev/nvme0n1", "serial:S1"],
                ["sda", "/dev/", "serial:a b", "largest"],
            ),
            (
                Form::HostName,
                ["node-1", "n.example.org", "1"],
                ["-a", "a..b", "a_b", long.as_str()],
            ),
            (
                Form::SshKey,
                ["ssh-ed25519 AAAA+/= one two", "ecdsa-sha2-nistp256 AA", "sk-ssh-ed25519@x A"],
                ["ssh-ed25519", "-----BEGIN PRIVATE KEY-----", "AAAA", "ssh-rsa a\u{e4}"],
            ),
        ] {
            for text in good {
                assert!(form.accepts(text), "{form:?} {text}");
            }
            for text in bad {
                assert!(!form.accepts(text), "{form:?} {text}");
            }
            assert!(form.accepts("") && !form.wanted().is_empty());
        }
        assert!(Form::Any.accepts("-") && Form::Filled.accepts("-"));
        assert!(Form::Any.accepts("") && !Form::Filled.accepts(""));
    }
}
