//! `[stream]`: whether the primary's log tells what was written past the proxy, and what that may cost.
//!
//! Read by `Config::load`; used by the stream. Where the server or the control user's rights do not allow it, `auto` goes on without,
//! and says why. Nothing here weakens what holds for writes through the proxy.

use std::time::Duration;

use super::kind::{Bytes, NOT_EMPTY, Optional, Span, Words};
use super::reader::Section;

/// Is the stream used?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamUse {
    /// Where it can be.
    #[default]
    Auto,
    /// Not at all.
    Off,
}

/// The stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Is it used?
    pub enabled: StreamUse,
    /// A publication that somebody else keeps; `None`: the proxy makes its own.
    pub publication: Option<String>,
    /// Further behind than this, what it carries is not read from the cache.
    pub delay_max: Duration,
    /// How long its slot may take to become ready.
    pub slot_timeout: Duration,
    /// WAL that its slot may keep on the primary.
    pub retained_max: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            enabled: StreamUse::Auto,
            publication: None,
            delay_max: Duration::from_secs(1),
            slot_timeout: Duration::from_secs(30),
            retained_max: 1 << 30,
        }
    }
}

const USES: &[(&str, StreamUse)] = &[("auto", StreamUse::Auto), ("off", StreamUse::Off)];

impl StreamConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("enabled", &mut self.enabled, &Words(USES));
        let publication = Optional {
            none: "own",
            kind: NOT_EMPTY,
        };
        section.read("publication", &mut self.publication, &publication);
        section.read("delay_max", &mut self.delay_max, &Span::new(10, 3_600));
        section.read("slot_timeout", &mut self.slot_timeout, &Span::new(100, 3_600));
        section.read("retained_max", &mut self.retained_max, &Bytes(1 << 20..=1 << 50));
    }
}
