//! Why a pinned plan cannot be read.

/// Why a pinned copy cannot be read. The run that pinned it must then be held; guessing is not allowed.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not the JSON of a plan.
    #[error("the pinned plan is not readable")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error(
        "the pinned plan has format {found}, this build reads formats 1 to {newest}; use the version that wrote it, or a newer one"
    )]
    Format {
        /// Format of the copy.
        found: u32,
        /// The newest that this build reads.
        newest: u32,
    },
    /// Names something that this build does not know.
    #[error("the pinned plan names the unknown {what} `{name}`")]
    UnknownName {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A plan, but not as its format would write it: it was edited.
    #[error("the pinned plan is not in canonical form")]
    NotCanonical,
}
