//! How the controllers of one class of machines are called.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::outbound::{Dial, TcpDial, Trust};

/// Settings of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedfishSettings {
    /// Whose certificates are believed, where a machine pins none.
    pub trust: Trust,
    /// Any certificate is believed, and plain http is spoken: an explicit choice of the class.
    pub is_insecure: bool,
    /// Sessions are used where there are any; otherwise each request carries the password.
    pub uses_sessions: bool,
    /// The network adapters are read: what the controller lists as the machine's is compared with what is registered.
    pub reads_adapters: bool,
    /// Medium that the controller attaches for an installation, instead of booting from the network.
    pub image: Option<String>,
    /// How long a power state must stay before it is believed.
    pub settle: Duration,
    /// How long a machine may take to change its power state.
    pub power: Duration,
    /// How long an operating system may take to shut down before the power is cut.
    pub graceful: Duration,
    /// Time between two looks at a state that is waited for.
    pub poll: Duration,
    /// Longest time for one request, and for the task that it starts.
    pub request: Duration,
    /// Most requests per second to one controller.
    pub requests_per_s_max: u32,
}

impl Default for RedfishSettings {
    fn default() -> Self {
        Self {
            trust: Trust::System,
            is_insecure: false,
            uses_sessions: true,
            reads_adapters: true,
            image: None,
            settle: Duration::from_secs(10),
            power: Duration::from_secs(120),
            graceful: Duration::from_secs(180),
            poll: Duration::from_secs(2),
            request: Duration::from_secs(60),
            requests_per_s_max: 10,
        }
    }
}

/// What the driver uses of the server.
#[derive(Debug, Clone)]
pub struct RedfishPorts {
    /// Connects to controllers.
    pub dial: Arc<dyn Dial>,
    /// Where images may come from: controllers download them.
    pub images: TcpDial,
    /// Credentials by name.
    pub credentials: Credentials,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
