//! Log sequence numbers: positions in the write-ahead log.
//!
//! Used wherever a position is compared. Two positions are comparable only on one timeline; callers keep that rule.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, as `pg_lsn`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not of the form `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log sequence number of the form 16/B374D848")]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let half = |part: &str| {
            let digits = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            if digits {
                u64::from_str_radix(part, 16).map_err(|_| NotAnLsn)
            } else {
                Err(NotAnLsn)
            }
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_agree() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        assert_eq!("FFFFFFFF/FFFFFFFF".parse(), Ok(Lsn(u64::MAX)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "/", "1/", "/1", "1/2/3", "g/0", "+1/0", "123456789/0", "0/ 1"] {
            assert_eq!(text.parse::<Lsn>(), Err(NotAnLsn), "{text:?}");
        }
    }

    #[test]
    fn later_positions_are_greater() {
        assert!(Lsn(0x1_0000_0000) > Lsn(0xFFFF_FFFF));
    }
}
