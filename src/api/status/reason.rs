//! The closed list of reasons.

use tonic::Code;

use crate::executor::error::Refusal;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident;)*) => {
        /// `ErrorInfo.reason`: a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC code that it comes with.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// Fields of the request are wrong.
    FieldInvalid = "FIELD_INVALID", InvalidArgument;
    /// A filter cannot be parsed.
    FilterInvalid = "FILTER_INVALID", InvalidArgument;
    /// A page token was not made by this server, or was damaged.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// A page token belongs to another list.
    PageTokenMismatch = "PAGE_TOKEN_MISMATCH", InvalidArgument;
    /// A request id was used for another request.
    RequestIdReused = "REQUEST_ID_REUSED", InvalidArgument;
    /// The request cannot be decoded as its message.
    MessageMalformed = "MESSAGE_MALFORMED", InvalidArgument;
    /// The request is larger than the server accepts.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted;
    /// The request is compressed in a way that the server does not support.
    CompressionUnsupported = "COMPRESSION_UNSUPPORTED", Unimplemented;
    /// There is no such object.
    NotFound = "NOT_FOUND", NotFound;
    /// The object exists already, and differs.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// Another run is active on the machine.
    RunActive = "RUN_ACTIVE", FailedPrecondition;
    /// No transition leads from the machine's phase to the requested one.
    IllegalPhase = "ILLEGAL_PHASE", FailedPrecondition;
    /// The plan does not allow the machine's phase.
    PhaseNotAllowed = "PHASE_NOT_ALLOWED", FailedPrecondition;
    /// The plan refuses the machine's effective state.
    EffectiveStateRefused = "EFFECTIVE_STATE_REFUSED", FailedPrecondition;
    /// A condition that the plan requires does not hold.
    ConditionNotMet = "CONDITION_NOT_MET", FailedPrecondition;
    /// NeedsIntervention blocks the machine.
    InterventionNeeded = "INTERVENTION_NEEDED", FailedPrecondition;
    /// The machine's provider is not configured on this server.
    ProviderMissing = "PROVIDER_MISSING", FailedPrecondition;
    /// The provider cannot do what a step needs.
    CapabilityMissing = "CAPABILITY_MISSING", FailedPrecondition;
    /// The provider refuses an argument of a step.
    ArgumentRefused = "ARGUMENT_REFUSED", FailedPrecondition;
    /// The verb is not possible in the run's state.
    RunState = "RUN_STATE", FailedPrecondition;
    /// The verb is not possible in the step's state.
    StepState = "STEP_STATE", FailedPrecondition;
    /// Only a RETIRED machine can be deleted.
    NotRetired = "NOT_RETIRED", FailedPrecondition;
    /// A data-destroying step has begun on the machine and did not succeed.
    DisksUntrusted = "DISKS_UNTRUSTED", FailedPrecondition;
    /// The hardware is not the registered one, and a step would destroy its data.
    HardwareMismatch = "HARDWARE_MISMATCH", FailedPrecondition;
    /// Everything is stopped.
    Stopped = "STOPPED", FailedPrecondition;
    /// The machine is locked.
    MachineLocked = "MACHINE_LOCKED", FailedPrecondition;
    /// The plan is paused.
    PlanPaused = "PLAN_PAUSED", FailedPrecondition;
    /// The object has changed since the client read it.
    EtagMismatch = "ETAG_MISMATCH", Aborted;
    /// Another request wrote at the same moment.
    RevisionConflict = "REVISION_CONFLICT", Aborted;
    /// The history from which a watch was to resume is gone.
    RevisionCompacted = "REVISION_COMPACTED", OutOfRange;
    /// A limit of the server is reached.
    LimitReached = "LIMIT_REACHED", ResourceExhausted;
    /// The store is full.
    StoreFull = "STORE_FULL", ResourceExhausted;
    /// The store failed; nothing was written.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// The store failed; whether the request is durable is unknown.
    StoreOutcomeUnknown = "STORE_OUTCOME_UNKNOWN", Unavailable;
    /// Another server has taken over the machine's work.
    LeaseLost = "LEASE_LOST", Unavailable;
    /// The credentials of the call are missing, or not accepted.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// The caller's role does not allow the request.
    RoleMissing = "ROLE_MISSING", PermissionDenied;
    /// The caller is locked.
    PrincipalLocked = "PRINCIPAL_LOCKED", PermissionDenied;
    /// The caller's scope does not allow the request.
    OutOfScope = "OUT_OF_SCOPE", PermissionDenied;
    /// The credentials of a stream's caller have expired or were revoked.
    CredentialsEnded = "CREDENTIALS_ENDED", Unauthenticated;
    /// The server is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// The server has not recovered its runs yet.
    NotReady = "NOT_READY", Unavailable;
    /// A stored record cannot be read.
    StoreCorrupt = "STORE_CORRUPT", DataLoss;
    /// The client's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// There is no such method.
    MethodUnknown = "METHOD_UNKNOWN", Unimplemented;
    /// A bug in the server.
    Internal = "INTERNAL", Internal;
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::RunActive => Self::RunActive,
            Refusal::IllegalPhase => Self::IllegalPhase,
            Refusal::PhaseNotAllowed => Self::PhaseNotAllowed,
            Refusal::EffectiveStateRefused => Self::EffectiveStateRefused,
            Refusal::ConditionNotMet => Self::ConditionNotMet,
            Refusal::InterventionNeeded => Self::InterventionNeeded,
            Refusal::ProviderMissing => Self::ProviderMissing,
            Refusal::CapabilityMissing => Self::CapabilityMissing,
            Refusal::ArgumentRefused => Self::ArgumentRefused,
            Refusal::RunState => Self::RunState,
            Refusal::StepState => Self::StepState,
            Refusal::NotRetired => Self::NotRetired,
            Refusal::DisksUntrusted => Self::DisksUntrusted,
            Refusal::HardwareMismatch => Self::HardwareMismatch,
            Refusal::Stopped => Self::Stopped,
            Refusal::MachineLocked => Self::MachineLocked,
            Refusal::PlanPaused => Self::PlanPaused,
        }
    }
}
