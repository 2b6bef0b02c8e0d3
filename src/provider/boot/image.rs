//! Images that can be installed.

/// An image of an operating system, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where installers download it.
    pub url: String,
    /// SHA-256 of what is downloaded, as 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Architecture of the machines it is for, for example `x86_64`.
    pub architecture: String,
    /// Arguments of its kernel, for installers that set them; may be empty.
    pub kernel_arguments: String,
}
