//! The closed lists of names that plans use. TOML, the CLI and filters use the same ones; a test elsewhere checks
//! them against those of `lifecycle`.

/// Declares an enum whose variants have one stable text each, with `ALL`, `as_str` and `parse`.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable text of the value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value with exactly this text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

names! {
    /// Explicit lifecycle phase of a machine.
    Phase {
        /// Delivered, never provisioned.
        FactoryReady = "FACTORY_READY",
        /// Provisioned and free.
        Ready = "READY",
        /// Serving a customer.
        InService = "IN_SERVICE",
        /// Taken out by an operator.
        Maintenance = "MAINTENANCE",
        /// Being returned to its manufacturer.
        Rma = "RMA",
        /// Gone for good.
        Retired = "RETIRED",
    }
}

names! {
    /// Effective state of a machine, computed from phase, conditions and active run.
    EffectiveState {
        /// Same as the phase.
        FactoryReady = "FACTORY_READY",
        /// Same as the phase.
        Ready = "READY",
        /// Same as the phase, or in a customer's cluster.
        InService = "IN_SERVICE",
        /// Same as the phase.
        Maintenance = "MAINTENANCE",
        /// Same as the phase.
        Rma = "RMA",
        /// Same as the phase.
        Retired = "RETIRED",
        /// A run is active.
        Provisioning = "PROVISIONING",
    }
}

names! {
    /// Observed boolean of a machine.
    Condition {
        /// Answers health probes.
        Reachable = "Reachable",
        /// Member of its target cluster.
        InCustomerCluster = "InCustomerCluster",
        /// An operator must look at it.
        NeedsIntervention = "NeedsIntervention",
        /// Works with reduced capacity.
        Degraded = "Degraded",
    }
}

names! {
    /// Purpose of a run.
    RunType {
        /// Installs a machine and joins it to its cluster.
        Repave = "REPAVE",
        /// Prepares a machine for its return.
        Rma = "RMA",
        /// Restarts a machine.
        Reboot = "REBOOT",
        /// Reinstalls a serving machine.
        Upgrade = "UPGRADE",
        /// Applies network configuration.
        NetReconfig = "NET_RECONFIG",
        /// Runs a plan that is not the default of any type.
        Custom = "CUSTOM",
    }
}

names! {
    /// Class of a failure, as reported by a provider.
    ErrorClass {
        /// May go away by itself.
        Transient = "transient",
        /// Will fail again the same way.
        Permanent = "permanent",
        /// Only a person can fix it.
        NeedsHuman = "needs-human",
    }
}

names! {
    /// What to do when it is unknown whether a step's action took effect.
    OnUnknown {
        /// Act again under the same operation id.
        Retry = "retry",
        /// Look at the machine and decide by what is observed.
        Verify = "verify",
        /// Hold the run for an operator.
        Hold = "hold",
    }
}

names! {
    /// Type of a parameter or an argument.
    ValueKind {
        /// UTF-8 text of one line.
        String = "string",
        /// Signed 64-bit integer.
        Integer = "integer",
        /// `true` or `false`.
        Boolean = "boolean",
        /// Milliseconds, written `500ms`, `30s`, `5m`, `1h30m`.
        Duration = "duration",
    }
}

names! {
    /// What a provider must support for an action.
    Capability {
        /// Choose what the machine boots from.
        Netboot = "netboot",
        /// Write an operating system image.
        Imaging = "imaging",
        /// Switch power.
        Power = "power",
        /// Make a machine a member of a cluster.
        ClusterJoin = "cluster-join",
        /// Erase disks.
        Wipe = "wipe",
        /// Configure the network.
        Network = "network",
        /// Send messages to people or systems.
        Notify = "notify",
        /// Look at a machine without changing it.
        Probe = "probe",
        /// Move workloads away.
        Drain = "drain",
        /// Perform actions that the server declares.
        Custom = "custom",
        /// Nothing: the engine performs it itself, and no provider is called.
        Engine = "engine",
    }
}

names! {
    /// When a step of a plan runs.
    Role {
        /// In its position among the steps of the plan.
        Main = "steps",
        /// After a step has failed, before anything is undone.
        OnFailure = "on_failure",
        /// Last, whatever the outcome.
        Finally = "finally",
    }
}

names! {
    /// What an action puts at risk. A *destructive* step has one of the two classes, and must declare `on_unknown`.
    Risk {
        /// Nothing.
        None = "none",
        /// Service stops while it runs, or until another action restores it: reboot, drain, network.
        Disruptive = "disruptive",
        /// The contents of the disks are lost: wipe, repave.
        DataDestroying = "data-destroying",
    }
}

impl Risk {
    /// Whether data or service can be lost: either class.
    pub const fn is_destructive(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether data is lost.
    pub const fn destroys_data(self) -> bool {
        matches!(self, Self::DataDestroying)
    }
}
