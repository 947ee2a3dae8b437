//! The regions that the network is configured for.

use limpet_shared::region::Region;

/// Configured regions, the default one first.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    configured: Vec<&'static Region>,
}

impl Regions {
    /// Names that are no region are left out: whoever configured them has been told at the start.
    pub fn new(names: &[String], default: &str) -> Self {
        let mut configured: Vec<_> = names.iter().filter_map(|name| Region::by_name(name)).collect();
        configured.sort_by_key(|region| !region.name().eq_ignore_ascii_case(default));
        configured.dedup();
        Self { configured }
    }

    pub fn all(&self) -> &[&'static Region] {
        &self.configured
    }

    /// A configured region by its name, such as `us915_1`.
    pub fn by_name(&self, name: &str) -> Option<&'static Region> {
        self.configured.iter().find(|region| region.name().eq_ignore_ascii_case(name)).copied()
    }

    /// The first configured region of a band, such as `US915`.
    pub fn by_band(&self, band: &str) -> Option<&'static Region> {
        self.configured.iter().find(|region| region.band() == band).copied()
    }

    /// The names, for a message.
    pub fn names(&self) -> String {
        self.configured.iter().map(|region| region.name()).collect::<Vec<_>>().join(", ")
    }
}
