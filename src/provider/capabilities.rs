//! What a provider supports for a machine.

use std::fmt;

use crate::plan::Capability;

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Every one.
    #[must_use]
    pub fn all() -> Self {
        Capability::ALL.iter().copied().collect()
    }

    /// Whether this one is included.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & Self::bit(capability) != 0
    }

    /// Those included, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.iter().copied().filter(move |capability| self.contains(*capability))
    }

    const fn bit(capability: Capability) -> u32 {
        1 << capability as u32
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().fold(0, |bits, capability| bits | Self::bit(capability)))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let set: Capabilities = [Capability::Drain, Capability::Netboot].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Capability::Netboot, Capability::Drain]);
        assert!(set.contains(Capability::Drain) && !set.contains(Capability::Power));
        assert!(Capabilities::all().iter().eq(Capability::ALL.iter().copied()));
        assert_eq!(Capabilities::default().iter().count(), 0);
    }
}
