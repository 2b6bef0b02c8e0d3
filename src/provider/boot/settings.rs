//! What an installer needs to know, as text that a shell can read.

use std::fmt::Write as _;

use super::image::Image;
use crate::ids::MachineId;

/// What an installer is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Write an image.
    Install(Image),
    /// Erase every disk.
    Erase {
        /// How: "quick" or "secure", as the action says.
        method: String,
    },
}

/// Settings of one attempt to install or erase one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The machine.
    pub machine_id: MachineId,
    /// What to do.
    pub task: Task,
    /// Host name of the installed system.
    pub hostname: String,
    /// Where to install: a path such as `/dev/sda`, `serial:NUMBER`, or `smallest`.
    pub disk: String,
    /// SSH keys that may log in as root, in the form of an `authorized_keys` line.
    pub ssh_keys: Vec<String>,
    /// For the first start of the installed system, as its image understands it; may be empty.
    pub user_data: String,
}

impl Settings {
    /// One `key=value` a line; values have no line feeds, and a key can come more than once.
    #[must_use]
    pub fn text(&self, token: &str, report_url: &str) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // A line feed in a value would begin a setting of another origin.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            writeln!(text, "{key}={value}").expect("writing to memory");
        };
        line("version", "1");
        line("machine", self.machine_id.as_str());
        line("token", token);
        line("report_url", report_url);
        match &self.task {
            Task::Install(image) => {
                line("task", "install");
                line("image_url", &image.url);
                line("image_sha256", &image.sha256);
                line("architecture", &image.architecture);
                line("kernel_arguments", &image.kernel_arguments);
            }
            Task::Erase { method } => {
                line("task", "erase");
                line("method", method);
            }
        }
        line("hostname", &self.hostname);
        line("disk", &self.disk);
        for key in &self.ssh_keys {
            line("ssh_key", key);
        }
        if !self.user_data.is_empty() {
            line("user_data", &self.user_data);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_that_a_shell_can_read() {
        let settings = Settings {
            machine_id: MachineId::parse("node-1").expect("an id"),
            task: Task::Install(Image {
                url: "http://10.0.0.1/disk.raw.gz".to_owned(),
                sha256: "00ff".repeat(16),
                architecture: "x86_64".to_owned(),
                kernel_arguments: "console=ttyS0 quiet".to_owned(),
            }),
            hostname: "node-1\ntoken=forged".to_owned(),
            disk: "smallest".to_owned(),
            ssh_keys: vec!["ssh-ed25519 AAAA one".to_owned(), "ssh-ed25519 BBBB two".to_owned()],
            user_data: "http://10.0.0.1/first-start".to_owned(),
        };
        let text = settings.text("bmi_1", "http://10.0.0.1:8069/boot/v1/report/node-1");
        assert_eq!(text.lines().count(), 14, "{text}");
        assert!(text.contains("\nhostname=node-1token=forged\n"), "{text}");
        assert!(text.contains("\nkernel_arguments=console=ttyS0 quiet\n"), "{text}");
        assert_eq!(text.matches("\nssh_key=").count(), 2, "{text}");
        assert_eq!(text.matches("\ntoken=").count(), 1, "{text}");
    }
}
