//! A map by the names of the protocol, in which the empty name is one like any other, and the most used.
//!
//! Used by `statements`, for statements and for portals. Invariant: it holds what a map by name would; the entry without a name
//! has a place of its own only so that it is found, put and dropped without a hash or an allocation.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

/// What the names mean.
#[derive(Debug)]
pub(super) struct Names<T> {
    unnamed: Option<T>,
    named: HashMap<Bytes, T, RandomState>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            unnamed: None,
            named: HashMap::default(),
        }
    }
}

impl<T> Names<T> {
    pub(super) fn get(&self, name: &[u8]) -> Option<&T> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// Returns what the name meant before.
    pub(super) fn insert(&mut self, name: Bytes, value: T) -> Option<T> {
        if name.is_empty() {
            self.unnamed.replace(value)
        } else {
            self.named.insert(name, value)
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<T> {
        if name.is_empty() {
            self.unnamed.take()
        } else {
            self.named.remove(name)
        }
    }

    /// Drops the named ones that are not to stay.
    pub(super) fn retain_named(&mut self, stays: impl Fn(&T) -> bool) {
        self.named.retain(|_, value| stays(value));
    }

    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        self.named.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..4_u8, 0..3_usize, any::<u8>()), 0..40)) {
            const NAMES: [&str; 3] = ["", "a", "b"];
            let (mut names, mut map) = (Names::default(), HashMap::new());
            for (step, name, value) in steps {
                let name = NAMES[name];
                match step {
                    0 | 1 => prop_assert_eq!(
                        names.insert(Bytes::from_static(name.as_bytes()), value),
                        map.insert(name, value)
                    ),
                    2 => prop_assert_eq!(names.remove(name.as_bytes()), map.remove(name)),
                    _ => {
                        names.retain_named(|kept| *kept >= value);
                        map.retain(|name, kept| name.is_empty() || *kept >= value);
                    }
                }
                for name in NAMES {
                    prop_assert_eq!(names.get(name.as_bytes()), map.get(name));
                }
                prop_assert_eq!(names.len(), map.len());
            }
            names.clear();
            prop_assert_eq!(names.len(), 0);
        }
    }
}
