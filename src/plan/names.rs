//! The closed lists of names that plans use. TOML, the CLI and filters use the same ones; a test elsewhere equates them with those of
//! `lifecycle`.

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
        /// Being returned to its maker.
        Rma = "RMA",
        /// Gone for good.
        Retired = "RETIRED",
    }
}

names! {
    /// What a machine counts as, computed from phase, conditions and active run.
    EffectiveState {
        /// As the phase.
        FactoryReady = "FACTORY_READY",
        /// As the phase.
        Ready = "READY",
        /// As the phase, or in a customer's cluster.
        InService = "IN_SERVICE",
        /// As the phase.
        Maintenance = "MAINTENANCE",
        /// As the phase.
        Rma = "RMA",
        /// As the phase.
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
        /// Somebody has to look at it.
        NeedsIntervention = "NeedsIntervention",
        /// Works with reduced capacity.
        Degraded = "Degraded",
    }
}

names! {
    /// What a run is for.
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
        /// Runs a plan that is nobody's default.
        Custom = "CUSTOM",
    }
}

names! {
    /// How a provider classes a failure.
    ErrorClass {
        /// May go away by itself.
        Transient = "transient",
        /// Will fail again the same way.
        Permanent = "permanent",
        /// Only a person can mend it.
        NeedsHuman = "needs-human",
    }
}

names! {
    /// What to do when nobody can say whether a step's action happened.
    OnUnknown {
        /// Act again under the same operation id.
        Retry = "retry",
        /// Look at the machine and decide by what is seen.
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
    /// What a provider must be able to do for an action.
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
        /// Nothing: the engine carries it out itself, and no provider is asked.
        Engine = "engine",
    }
}

names! {
    /// When a step of a plan has its turn.
    Role {
        /// In its place among the steps of the plan.
        Main = "steps",
        /// After a step has failed, before anything is undone.
        OnFailure = "on_failure",
        /// Last, whatever the end.
        Finally = "finally",
    }
}

names! {
    /// What an action puts at stake. A step that is *destructive* has one of the two classes, and must say `on_unknown`.
    Risk {
        /// Nothing.
        None = "none",
        /// Service stops while it lasts, or until another action brings it back: reboot, drain, network.
        Disruptive = "disruptive",
        /// What is on the disks is gone: wipe, repave.
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
