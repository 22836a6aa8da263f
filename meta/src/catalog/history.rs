//! What changed at each of the last versions, so that a view that is a little behind is sent only that.

use std::collections::{BTreeSet, VecDeque};

use meridian_proto::CatalogVersion;
use meridian_proto::catalog::{CatalogDelta, NounKey};

use super::Catalog;

/// Changed keys that are remembered. 100,000 x about 40 bytes = 4 MB.
const KEYS_MAX: usize = 100_000;

/// In memory only: a member that starts has none and sends whole catalogs at first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Changes after this version are all remembered.
    known_after: CatalogVersion,
    steps: VecDeque<(CatalogVersion, Vec<NounKey>)>,
    key_count: usize,
}

impl History {
    /// Nothing is known of how the catalog came to `version`.
    #[must_use]
    pub fn starting_at(version: CatalogVersion) -> Self {
        Self { known_after: version, ..Self::default() }
    }

    /// Notes what changed at `version`.
    pub fn record(&mut self, version: CatalogVersion, keys: Vec<NounKey>) {
        self.key_count += keys.len();
        self.steps.push_back((version, keys));
        while self.key_count > KEYS_MAX
            && let Some((version, keys)) = self.steps.pop_front()
        {
            self.key_count -= keys.len();
            self.known_after = version;
        }
    }

    /// The way from version `after` to the newest; a whole catalog where memory does not reach back.
    #[must_use]
    pub fn delta(&self, catalog: &Catalog, after: CatalogVersion) -> CatalogDelta {
        if after == CatalogVersion(0) || after < self.known_after || after > catalog.version() {
            return catalog.whole();
        }
        let first = self.steps.partition_point(|(version, _)| *version <= after);
        let keys: BTreeSet<&NounKey> = self.steps.range(first..).flat_map(|(_, keys)| keys).collect();
        let mut delta = CatalogDelta { from: after, to: catalog.version(), changed: Vec::new(), removed: Vec::new() };
        for key in keys {
            match catalog.noun(key) {
                Some(noun) => delta.changed.push(noun),
                None => delta.removed.push(key.clone()),
            }
        }
        delta
    }
}
