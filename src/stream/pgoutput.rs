//! pgoutput, as far as invalidation needs it: which tables a committed transaction changed, its xid, and where its commit ends.
//!
//! Called by `wire` with each piece of the stream. Pure. Invariant: any bytes are either understood, with every length checked, or
//! an error after which the stream is given up. Rows are passed over: whoever invalidates by row begins at `Change::Row`, behind
//! whose relation old and new images stand. Protocol version 1, so that only committed transactions come, each in one piece.
//! Manual: "Logical Replication Message Formats".

use std::collections::BTreeSet;

use super::replication::Broken;
use crate::catalog::verdict::Oid;
use crate::protocol::lsn::Lsn;

/// More tables than a publication of ours may have are a broken stream.
const TABLES_MAX: usize = 1 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A transaction begins.
    Begin {
        /// Its 32-bit number.
        xid: u32,
    },
    /// It has been committed.
    Commit {
        /// The first position after its commit record.
        end: Lsn,
    },
    /// A row of this table was inserted, updated or deleted.
    Row(Oid),
    /// These tables were emptied.
    Truncate(Vec<Oid>),
    /// What invalidates nothing: the description of a relation or a type, an origin, a message.
    Other,
}

/// Reads one message.
pub fn change(data: &[u8]) -> Result<Change, Broken> {
    let (tag, body) = data.split_first().ok_or(Broken::CutOff)?;
    let number = |at: usize| -> Result<u32, Broken> {
        let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes
            .map(|bytes| u32::from_be_bytes(*bytes))
            .ok_or(Broken::CutOff)
    };
    Ok(match tag {
        // The position of the commit, its time, the number.
        b'B' => Change::Begin { xid: number(16)? },
        // Flags, the beginning of the commit record, its end, its time.
        b'C' => Change::Commit {
            end: Lsn(u64::from(number(9)?) << 32 | u64::from(number(13)?)),
        },
        b'I' | b'U' | b'D' => Change::Row(number(0)?),
        b'T' => {
            let count = usize::try_from(number(0)?).map_err(|_| Broken::CutOff)?;
            let tables = body.get(5..).unwrap_or_default().chunks_exact(4);
            if tables.len() < count {
                return Err(Broken::CutOff);
            }
            let oid = |bytes: &[u8]| bytes.iter().fold(0, |oid, byte| oid << 8 | Oid::from(*byte));
            Change::Truncate(tables.take(count).map(oid).collect())
        }
        b'R' | b'Y' | b'O' | b'M' => Change::Other,
        other => return Err(Broken::Unexpected(*other)),
    })
}

/// A transaction that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its 32-bit number.
    pub xid: u32,
    /// The first position after its commit record: whoever has replayed up to here has it.
    pub end: Lsn,
    /// The published tables that it changed, sorted.
    pub tables: Vec<Oid>,
}

/// Puts messages together to transactions.
#[derive(Debug, Default)]
pub struct Transactions {
    open: Option<(u32, BTreeSet<Oid>)>,
}

impl Transactions {
    /// Takes the next message; a commit completes a transaction.
    pub fn take(&mut self, data: &[u8]) -> Result<Option<Committed>, Broken> {
        let tag = data.first().copied().unwrap_or_default();
        match (change(data)?, &mut self.open) {
            (Change::Begin { xid }, open @ None) => *open = Some((xid, BTreeSet::new())),
            (Change::Row(table), Some((_, tables))) => {
                tables.insert(table);
            }
            (Change::Truncate(emptied), Some((_, tables))) => tables.extend(emptied),
            (Change::Commit { end }, open @ Some(_)) => {
                let committed = open.take().map(|(xid, tables)| Committed {
                    xid,
                    end,
                    tables: tables.into_iter().collect(),
                });
                return Ok(committed);
            }
            (Change::Other, _) => {}
            // A beginning within a transaction, or anything else outside of one.
            _ => return Err(Broken::Unexpected(tag)),
        }
        match &self.open {
            Some((_, tables)) if tables.len() > TABLES_MAX => Err(Broken::Unexpected(tag)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begin(xid: u32) -> Vec<u8> {
        [b"B", &[0; 16][..], &xid.to_be_bytes()].concat()
    }

    fn commit(end: u64) -> Vec<u8> {
        [b"C\0", &[9; 8][..], &end.to_be_bytes(), &[0; 8]].concat()
    }

    fn row(tag: u8, table: u32) -> Vec<u8> {
        [&[tag][..], &table.to_be_bytes(), b"N\0\x01t\0\0\0\x011"].concat()
    }

    fn truncate(tables: &[u32]) -> Vec<u8> {
        let count = u32::try_from(tables.len()).expect("few");
        let mut out = [b"T", &count.to_be_bytes()[..], b"\0"].concat();
        out.extend(tables.iter().flat_map(|table| table.to_be_bytes()));
        out
    }

    #[test]
    fn a_commit_tells_number_end_and_tables() {
        let mut transactions = Transactions::default();
        let before = [
            begin(746),
            b"R\0\0\x40\x01public\0t\0d\0\0".to_vec(),
            row(b'I', 0x4001),
            row(b'U', 7),
            row(b'D', 7),
            truncate(&[9, 0x4001]),
            b"M\0".to_vec(),
        ];
        for message in before {
            assert_eq!(transactions.take(&message), Ok(None));
        }
        let committed = Committed {
            xid: 746,
            end: Lsn(0x16_B374_D848),
            tables: vec![7, 9, 0x4001],
        };
        assert_eq!(transactions.take(&commit(0x16_B374_D848)), Ok(Some(committed)));
        assert_eq!(transactions.take(&begin(747)), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |messages: &[Vec<u8>], wanted: Broken| {
            let mut transactions = Transactions::default();
            let (last, first) = messages.split_last().expect("some");
            for message in first {
                assert_eq!(transactions.take(message), Ok(None));
            }
            assert_eq!(transactions.take(last), Err(wanted), "{messages:?}");
        };
        check(&[row(b'I', 1)], Broken::Unexpected(b'I'));
        check(&[commit(1)], Broken::Unexpected(b'C'));
        check(&[begin(1), begin(2)], Broken::Unexpected(b'B'));
        check(&[b"S\0\0\0\x01\x01".to_vec()], Broken::Unexpected(b'S'));
        check(&[Vec::new()], Broken::CutOff);
        check(&[begin(1)[..20].to_vec()], Broken::CutOff);
        check(&[begin(1), commit(1)[..17].to_vec()], Broken::CutOff);
        check(&[begin(1), b"U\0\0\x01".to_vec()], Broken::CutOff);
        check(
            &[begin(1), b"T\xff\xff\xff\xff\0\0\0\0\x01".to_vec()],
            Broken::CutOff,
        );
        check(&[begin(1), truncate(&[1, 2])[..13].to_vec()], Broken::CutOff);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut transactions = Transactions::default();
            for mut message in messages {
                if let Some(tag) = message.first_mut() {
                    *tag = b"BCIUDTRYOMSEAcbPKrp"[usize::from(*tag) % 19];
                }
                if let Ok(Some(committed)) = transactions.take(&message) {
                    prop_assert!(committed.tables.is_sorted());
                }
            }
        }
    }
}
