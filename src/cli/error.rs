//! What can go wrong in the client, and the exit code for it.

use std::collections::BTreeSet;
use std::io;

use tonic::{Code, Status};

use crate::pb;

use super::fault::Fault;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything requested was done.
    Ok,
    /// What was checked is wrong; the findings are printed.
    Refused,
    /// A dry run found that StartRun would refuse.
    Blocked,
    /// All that went wrong are refusals, each of which would give this code.
    Refusals(u8),
    /// A watched run failed, or is held until an operator acts.
    RunFailed,
    /// A watched run was canceled.
    RunCanceled,
    /// The awaited state did not come in time.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Code of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Blocked => 64 + Code::FailedPrecondition as u8,
            Self::Refusals(code) => code,
            Self::RunFailed => 3,
            Self::RunCanceled => 4,
            Self::TimedOut => 5,
            Self::Interrupted => 130,
        }
    }

    /// The exit of a run that has ended; one that has not is held.
    pub(crate) fn of_run(run: &pb::Run) -> Self {
        match run.phase() {
            pb::RunPhase::Succeeded => Self::Ok,
            pb::RunPhase::Canceled => Self::RunCanceled,
            pb::RunPhase::Failed
            | pb::RunPhase::Unspecified
            | pb::RunPhase::Pending
            | pb::RunPhase::Running => Self::RunFailed,
        }
    }

    /// The exit after refusals of one command for several targets: that of a single one if they are alike.
    pub(crate) fn of_refusals(codes: &BTreeSet<u8>) -> Self {
        match (codes.len(), codes.first()) {
            (_, None) => Self::Ok,
            (1, Some(code)) => Self::Refusals(*code),
            (_, Some(_)) => Self::Blocked,
        }
    }

    /// The more telling one: of several outcomes the first that is not [`Exit::Ok`].
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Ok { other } else { self }
    }
}

/// What an RPC was about, for suggestions when it is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum About {
    /// Nothing with an id.
    Nothing,
    /// A machine.
    Machine(String),
    /// A run.
    Run(String),
    /// A plan.
    Plan(String),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line, or a value on it, is wrong; nothing was done.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// How to fix it.
        hint: String,
    },
    /// Something in a file or in the environment of the client is wrong.
    #[error("{message}")]
    Local {
        /// What is wrong.
        message: String,
        /// How to fix it, if known.
        hint: Option<String>,
        /// What the system said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Nothing listens at the address.
    #[error("cannot reach a server at {address}")]
    Unreachable {
        /// The address that was tried.
        address: String,
        /// What the network said.
        #[source]
        source: tonic::transport::Error,
        /// Whether no port was given, so that the default was used.
        port_assumed: bool,
    },
    /// The server was reached, and client and server do not go together, or do not trust each other.
    #[error("{}", fault.message(address))]
    Insecure {
        /// The address.
        address: String,
        /// What is wrong.
        fault: Fault,
    },
    /// The server was reached, then lost, and did not come back in time.
    #[error("lost the connection to the server at {address}")]
    Lost {
        /// Where the server was.
        address: String,
        /// Command that continues.
        resume: String,
    },
    /// The server refused.
    #[error("{}", status.message())]
    Rpc {
        /// Its answer.
        status: Box<Status>,
        /// What it was about.
        about: About,
    },
    /// Writing to standard output or standard error failed.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// An answer of the server that this client cannot interpret.
    #[error("the server's answer cannot be understood: {0}")]
    Answer(String),
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn local(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Local { message: message.into(), hint: Some(hint.into()), source: None }
    }

    pub(crate) fn rpc(status: Status) -> Self {
        Self::Rpc { status: Box::new(status), about: About::Nothing }
    }

    /// Names what the RPC was about, unless that is known already.
    #[must_use]
    pub(crate) fn about(mut self, what: About) -> Self {
        if let Self::Rpc { about, .. } = &mut self
            && *about == About::Nothing
        {
            *about = what;
        }
        self
    }

    /// What the server answered, if it did.
    pub(crate) fn status(&self) -> Option<&Status> {
        if let Self::Rpc { status, .. } = self { Some(status) } else { None }
    }

    /// gRPC code, if the server answered.
    pub(crate) fn grpc_code(&self) -> Option<Code> {
        self.status().map(Status::code)
    }

    /// Whether the reader of standard output went away, which is no error.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Code of the process: 1 internal, 2 usage, 64 + gRPC code for what the server or the network answered.
    pub(crate) fn code(&self) -> u8 {
        let grpc = |code: Code| 64_u8.saturating_add(u8::try_from(code as i32).unwrap_or(2));
        match self {
            Self::Usage { .. } => 2,
            Self::Local { .. } | Self::Output(_) | Self::Answer(_) => 1,
            Self::Insecure { fault, .. } if fault.is_about_client() => grpc(Code::Unauthenticated),
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Insecure { .. } => {
                grpc(Code::Unavailable)
            }
            Self::Rpc { status, .. } => grpc(effective_code(status)),
        }
    }
}

/// The code as it should be: tonic reports an expired deadline of the client as a cancel.
pub(crate) fn effective_code(status: &Status) -> Code {
    let expired = std::iter::successors(std::error::Error::source(status), |error| error.source())
        .any(|error| error.is::<tonic::TimeoutExpired>());
    if expired || (status.code() == Code::Cancelled && status.message() == "Timeout expired") {
        Code::DeadlineExceeded
    } else if is_cut_off(status) {
        Code::Unavailable
    } else {
        status.code()
    }
}

/// Whether the connection broke, as opposed to a refusal by the server.
///
/// A status that the server sent has no source; one that tonic made from a broken transport has.
pub(crate) fn is_connection_loss(status: &Status) -> bool {
    effective_code(status) == Code::Unavailable
}

/// Whether the connection ended before there was an answer: the client makes such a status itself, of a broken transport.
pub(crate) fn is_cut_off(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        && matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_design() {
        assert_eq!(Error::usage("a", "b").code(), 2);
        assert_eq!(Error::rpc(Status::not_found("x")).code(), 69);
        assert_eq!(Error::rpc(Status::failed_precondition("x")).code(), 73);
        assert_eq!(Error::rpc(Status::unavailable("x")).code(), 78);
        assert_eq!(Error::rpc(Status::cancelled("Timeout expired")).code(), 68);
        let codes = [
            Exit::Ok,
            Exit::Refused,
            Exit::Blocked,
            Exit::RunFailed,
            Exit::RunCanceled,
            Exit::TimedOut,
            Exit::Interrupted,
        ];
        assert_eq!(codes.map(Exit::code), [0, 1, 73, 3, 4, 5, 130]);
    }

    #[test]
    fn a_refusal_of_the_server_is_not_a_lost_connection() {
        assert!(is_connection_loss(&Status::unavailable("draining")));
        assert!(!is_connection_loss(&Status::unknown("bug")));
        let broken: Box<dyn std::error::Error + Send + Sync> = "reset by peer".into();
        let broken = Status::from_error(broken);
        assert!(is_connection_loss(&broken));
        assert_eq!(Error::rpc(broken).code(), 78);
    }
}
